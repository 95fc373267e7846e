//! The file as a tree in which every value has its position. YAML ends here: the modules above know
//! no tags, anchors, aliases or limits.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::finding::{Finding, Noted, Notes, Position};

mod syntax;

/// A value in the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) kind: Kind,
    /// It is written under one of [`CONFIDENTIAL`]; an alias takes that along.
    pub(super) confidential: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Mapping(Mapping),
}

/// Keys with their values, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    pub(super) entries: Vec<Entry>,
    /// Where each key stands first.
    index: HashMap<String, usize>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) value: Node,
    /// Where the same key stood before in the same mapping.
    pub(super) repeats: Option<Position>,
}

impl Node {
    /// Reads YAML. Parts that are not accepted are noted and left out, where that is possible.
    pub(super) fn read(text: &str, notes: &Notes) -> Result<Self, Noted> {
        Self::read_within(text, notes, MAX_SIZE)
    }

    /// The same, of at most so many values.
    pub(super) fn read_within(text: &str, notes: &Notes, max_size: usize) -> Result<Self, Noted> {
        let parser = Parser::new_from_str(text);
        let mut builder = Builder {
            parser,
            text,
            notes,
            anchors: HashMap::new(),
            size: 0,
            max_size,
            at: START,
            depth: 0,
            confidential: false,
        };
        builder.document()
    }

    /// The value of a key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Mapping(mapping) => mapping.entries.get(*mapping.index.get(key)?),
            _ => None,
        }
    }

    /// Whether it is empty, or one of YAML's words for null.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The kind of thing it is, in words.
    pub(super) fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Mapping(_) => "a mapping",
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "false") => {
                "a truth value"
            }
            Kind::Scalar { text, plain: true }
                if text.parse::<f64>().is_ok() && text.bytes().any(|b| b.is_ascii_digit()) =>
            {
                "a number"
            }
            Kind::Scalar { .. } => "text",
        }
    }

    /// Adds all values to a hash, wherever they stand.
    pub(super) fn hash_values(&self, state: &mut impl Hasher) {
        match &self.kind {
            Kind::Scalar { text, plain } => (0, text, plain).hash(state),
            Kind::List(items) => {
                (1, items.len()).hash(state);
                for item in items {
                    item.hash_values(state);
                }
            }
            Kind::Mapping(mapping) => {
                (2, mapping.entries.len()).hash(state);
                for entry in &mapping.entries {
                    entry.key.hash(state);
                    entry.value.hash_values(state);
                }
            }
        }
    }

    /// Its rough size in memory, in units of 64 bytes.
    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { text, .. } => text.len() / 64,
            Kind::List(items) => items.iter().map(Self::size).sum(),
            Kind::Mapping(mapping) => {
                MAPPING_SIZE + mapping.entries.iter().map(Entry::size).sum::<usize>()
            }
        }
    }
}

impl Entry {
    /// The size of a key and its value; the key is in the index, too.
    fn size(&self) -> usize {
        1 + self.key.len() / 32 + self.value.size()
    }
}

struct Builder<'t, 'n> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    text: &'t str,
    notes: &'n Notes,
    anchors: HashMap<usize, Node>,
    size: usize,
    max_size: usize,
    at: Position,
    depth: usize,
    confidential: bool,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Node, Noted> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    return self.stop("found a second document", "one document");
                }
                Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(..)
                | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span)?),
            }
        }
        // An empty file is a mapping in which everything is missing.
        Ok(root.filter(|r| !r.is_null()).unwrap_or(Node {
            position: START,
            kind: Kind::Mapping(Mapping::default()),
            confidential: false,
        }))
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Noted> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.at = position(&span);
                Ok(Some((event, span)))
            }
            Some(Err(error)) => {
                let mark = error.marker();
                let at = Position { line: mark.line().max(1), column: mark.col() + 1 };
                let fault = syntax::SyntaxFault::of(&error, at, self.text);
                let finding = Finding::whole_file(fault.problem, "YAML 1.2").hint_if(fault.hint);
                let finding = Finding { position: Some(fault.position), ..finding };
                Err(self.notes.add_read(finding.show_line()))
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Node, Noted> {
        let position = position(&span);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.stop("nested too deep", "at most 32 levels");
        }
        let (kind, anchor, tagged) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (Kind::Scalar { text: text.into_owned(), plain }, anchor, tag.is_some())
            }
            Event::SequenceStart(_, anchor, tag) => (self.list()?, anchor, tag.is_some()),
            Event::MappingStart(_, anchor, tag) => (self.mapping()?, anchor, tag.is_some()),
            Event::Alias(id) => {
                self.depth -= 1;
                return self.alias(id, position);
            }
            _ => return self.stop("this is not YAML", "YAML 1.2"),
        };
        self.depth -= 1;
        if tagged {
            self.note(position, "found a YAML tag", "values without tags");
        }
        let node = Node { position, kind, confidential: self.confidential };
        // The parts of a list or a mapping have been counted before it.
        self.count(match &node.kind {
            Kind::Scalar { .. } => node.size(),
            Kind::List(_) => 1,
            Kind::Mapping(_) => 1 + MAPPING_SIZE,
        })?;
        if anchor != 0 {
            // An anchor keeps a copy of its value, and an anchor within the value another one.
            self.count(node.size())?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// An alias is a copy. The copies count like everything else, so that a few lines cannot stand
    /// for millions of nodes.
    fn alias(&mut self, id: usize, position: Position) -> Result<Node, Noted> {
        let Some(size) = self.anchors.get(&id).map(Node::size) else {
            return self.stop("found an alias within what it stands for", "an alias further down");
        };
        self.count(size)?;
        Ok(Node { position, ..self.anchors[&id].clone() })
    }

    fn list(&mut self) -> Result<Kind, Noted> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, _)) => return Ok(Kind::List(items)),
                Some((event, span)) => items.push(self.node(event, span)?),
                None => return self.stop("this is not YAML", "YAML 1.2"),
            }
        }
    }

    fn mapping(&mut self) -> Result<Kind, Noted> {
        let mut mapping = Mapping::default();
        loop {
            let (key, is_alias) = match self.next()? {
                Some((Event::MappingEnd, _)) => return Ok(Kind::Mapping(mapping)),
                Some((event, span)) => {
                    let is_alias = matches!(event, Event::Alias(_));
                    (self.node(event, span)?, is_alias)
                }
                None => return self.stop("this is not YAML", "YAML 1.2"),
            };
            let Some((event, span)) = self.next()? else {
                return self.stop("this is not YAML", "YAML 1.2");
            };
            let outside = self.confidential;
            if let Kind::Scalar { text, .. } = &key.kind {
                self.confidential |= CONFIDENTIAL.contains(&text.as_str());
            }
            let value = self.node(event, span)?;
            self.confidential = outside;
            let position = key.position;
            match key.kind {
                // Keys are shown, and an alias could make a key of a secret.
                Kind::Scalar { .. } if is_alias => {
                    self.note(position, "found an alias as a key", "text");
                }
                Kind::Scalar { text, .. } => {
                    let next = mapping.entries.len();
                    let first = *mapping.index.entry(text.clone()).or_insert(next);
                    let repeats = mapping.entries.get(first).map(|e| e.position);
                    mapping.entries.push(Entry { key: text, position, value, repeats });
                }
                _ => {
                    let problem = format!("found {} as a key", key.kind_name());
                    self.note(position, &problem, "text");
                }
            }
        }
    }

    fn count(&mut self, more: usize) -> Result<(), Noted> {
        self.size += more;
        if self.size > self.max_size {
            let accepted = format!("at most {} values", self.max_size);
            return self.stop("found too much, aliases counted in full", &accepted);
        }
        Ok(())
    }

    fn note(&self, position: Position, problem: &str, accepted: &str) -> Noted {
        let finding = Finding::whole_file(problem, accepted).show_line();
        self.notes.add_read(Finding { position: Some(position), ..finding })
    }

    fn stop<T>(&self, problem: &str, accepted: &str) -> Result<T, Noted> {
        Err(self.note(self.at, problem, accepted))
    }
}

fn position(span: &Span) -> Position {
    Position { line: span.start.line().max(1), column: span.start.col() + 1 }
}

const START: Position = Position { line: 1, column: 1 };
const MAX_DEPTH: usize = 32;
/// The room for the entries of a mapping and for its index, which is more than a few of them need.
const MAPPING_SIZE: usize = 4;
/// Bounds the memory of all values and their copies.
pub(super) const MAX_SIZE: usize = 1_000_000;
/// Keys whose values are never shown: a secret may stand there, on purpose or by mistake.
pub(super) const CONFIDENTIAL: [&str; 8] = [
    "credential",
    "password",
    "embed_secret",
    "api_key",
    "api_keys",
    "sha256",
    "secret",
    "headers",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings on `text`; empty when it is accepted.
    fn said(text: &str) -> String {
        let notes = Notes::default();
        let read = Node::read(text, &notes);
        match notes.finish(read, "file.yaml") {
            Ok(_) => String::new(),
            Err(findings) => findings.to_string(),
        }
    }

    const TOO_MUCH: &str = "found too much, aliases counted in full";

    /// `count` values in a list under as many anchors, one within the other.
    fn anchored(count: usize, anchors: usize) -> String {
        let begin = (0..anchors).fold(String::new(), |text, at| text + &format!("&a{at} ["));
        format!("{begin}{}{}", "x,".repeat(count), "]".repeat(anchors))
    }

    #[test]
    fn what_an_anchor_keeps_counts_as_what_an_alias_repeats() {
        assert!(said(&anchored(400_000, 28)).contains(TOO_MUCH));
        assert!(said(&anchored(300_000, 3)).contains(TOO_MUCH));
        // Control: with fewer copies.
        assert_eq!(said(&anchored(300_000, 2)), "");
    }

    #[test]
    fn a_mapping_counts_for_more_than_what_is_in_it() {
        let nested = |times: usize| format!("[{}]", "{a: {a: {a: {a: b}}}},".repeat(times));
        assert!(said(&nested(50_000)).contains(TOO_MUCH));
        assert_eq!(said(&nested(30_000)), "");
    }

    #[test]
    fn long_keys_count_wherever_they_are_repeated() {
        let aliased = |times: usize| {
            format!("a: &a {{ ? \"{}\" : x }}\nb: [{}]", "k".repeat(100_000), "*a,".repeat(times))
        };
        assert!(said(&aliased(400)).contains(TOO_MUCH));
        assert_eq!(said(&aliased(100)), "");
        let short = format!("a: &a {{ k: x }}\nb: [{}]", "*a,".repeat(100_000));
        assert_eq!(said(&short), "");
    }
}
