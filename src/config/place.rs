//! A place in the file: a key path with its position and its value. A finding is made from
//! it, and it decides which text of the file the finding may show.

use super::finding::{Excerpt, Finding, Position};
use super::node::{CONFIDENTIAL, Kind, Node};

/// Where a value stands, or would stand if it were given.
#[derive(Clone, Debug)]
pub(super) struct Place<'n> {
    path: String,
    node: Option<&'n Node>,
    /// The position of its key, or of itself if it has none.
    named_at: Position,
    confidential: bool,
}

impl<'n> Place<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        let start = Position { line: 1, column: 1 };
        Self { path: String::new(), node: Some(node), named_at: start, confidential: false }
    }

    /// The place of a key's value, given or not.
    pub(super) fn key(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        let entry = self.node.and_then(|n| n.entry(key));
        Self {
            path: format!("{}{dot}{}", self.path, step(key)),
            node: entry.map(|e| &e.value),
            named_at: entry.map_or(self.named_at, |e| e.position),
            confidential: self.confidential
                || CONFIDENTIAL.contains(&key)
                || entry.is_some_and(|e| e.value.confidential),
        }
    }

    /// The place of an item of a list.
    pub(super) fn item(&self, index: usize) -> Self {
        let node = match self.kind() {
            Some(Kind::List(items)) => items.get(index),
            _ => None,
        };
        Self {
            path: format!("{}[{index}]", self.path),
            node,
            named_at: node.map_or(self.named_at, |n| n.position),
            confidential: self.confidential || node.is_some_and(|n| n.confidential),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn named_at(&self) -> Position {
        self.named_at
    }

    /// A finding on the value: it was found, something else is accepted.
    pub(super) fn wrong(&self, accepted: impl Into<String>) -> Finding {
        self.finding(format!("found {}", self.shown()), accepted)
    }

    /// The same, where only some words are accepted.
    pub(super) fn wrong_word(&self, accepted: &[&str]) -> Finding {
        let near = self.text().and_then(|t| nearest(t, accepted));
        // A value that resembles an accepted word, or any single word, is no secret.
        let shown = match self.text() {
            Some(text) if near.is_some() || is_single_word(text) => quoted(text),
            _ => self.shown(),
        };
        self.finding(format!("found {shown}"), words(accepted)).did_you_mean(near)
    }

    /// A finding on the kind of the value; the value is not shown.
    pub(super) fn wrong_kind(&self, accepted: impl Into<String>) -> Finding {
        let kind = self.node.map_or("nothing", Node::kind_name);
        self.finding(format!("found {kind}"), accepted)
    }

    /// A finding on the value, in its own words.
    pub(super) fn finding(
        &self,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> Finding {
        let position = self.node.map_or(self.named_at, |n| n.position);
        self.finding_at(position, problem, accepted)
    }

    /// A finding on the key, in its own words.
    pub(super) fn key_finding(
        &self,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> Finding {
        self.finding_at(self.named_at, problem, accepted)
    }

    /// The value is not given.
    pub(super) fn missing(&self, accepted: impl Into<String>) -> Finding {
        self.key_finding("missing", accepted)
    }

    /// A finding on an unknown key. Its value is never shown. The key itself is shown only when it
    /// is clearly a key: in a mapping on one line, a lost colon turns a value into a key.
    pub(super) fn unknown_key(&self, key: &str, known: &[&str], has_value: bool) -> Finding {
        let near = nearest(key, known);
        let plain = key.len() <= 40
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let clearly_a_key = near.is_some() || plain && has_value && !self.confidential;
        let position = self.node.and_then(|n| n.entry(key)).map_or(self.named_at, |e| e.position);
        let place = if clearly_a_key { &self.key(key) } else { self };
        place.finding_at(position, "found an unknown key", words(known)).did_you_mean(near)
    }

    fn finding_at(
        &self,
        position: Position,
        problem: impl Into<String>,
        accepted: impl Into<String>,
    ) -> Finding {
        Finding {
            position: Some(position),
            path: self.path.clone(),
            problem: problem.into(),
            accepted: Some(accepted.into()),
            hint: None,
            excerpt: Excerpt::None,
        }
    }

    /// The value; `None` if the key is not given.
    pub(super) fn kind(&self) -> Option<&'n Kind> {
        self.node.map(|node| &node.kind)
    }

    /// Whether the key is not given, or its value is one of YAML's words for nothing.
    pub(super) fn is_null(&self) -> bool {
        self.node.is_none_or(Node::is_null)
    }

    /// The text of a scalar that is not [null](Self::is_null).
    pub(super) fn text(&self) -> Option<&'n str> {
        match self.kind() {
            Some(Kind::Scalar { text, .. }) if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The value, if it may be shown, else its kind.
    fn shown(&self) -> String {
        match self.text() {
            Some("") => "empty text".to_owned(),
            // User info and queries of URLs may hold credentials.
            Some(text) if !self.confidential && !text.contains(['@', '?']) => quoted(text),
            _ => self.node.map_or("nothing", Node::kind_name).to_owned(),
        }
    }
}

/// A list of words as a message shows it.
pub(super) fn words(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

/// Text as a message shows it: short, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The known word that was most likely meant.
pub(super) fn nearest<'w>(text: &str, known: &[&'w str]) -> Option<&'w str> {
    if text.len() > MAX_SHOWN {
        return None;
    }
    let plain = text.to_ascii_lowercase().replace('-', "_");
    let distance = |word: &str| strsim::osa_distance(&plain, word);
    let near = known.iter().min_by_key(|w| distance(w))?;
    (distance(near) <= near.len() / 3 || plain.replace('_', "") == near.replace('_', ""))
        .then_some(*near)
}

/// Whether a text is one word as closed sets have them, such as `ldap`, `saml2` or `azure-ad`.
fn is_single_word(text: &str) -> bool {
    let is_word = |word: &str| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        !letters.is_empty()
            && word.len() - letters.len() <= 1
            && letters.bytes().all(|b| b.is_ascii_alphabetic())
    };
    text.len() <= MAX_WORD && text.split(['-', '_']).all(is_word)
}

/// One key of a path. Names are the operator's: a key that could not be a name is put in quotes.
fn step(key: &str) -> String {
    let is_name = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if is_name && !key.is_empty() && key.len() <= MAX_SHOWN { key.to_owned() } else { quoted(key) }
}

const MAX_SHOWN: usize = 64;
const MAX_WORD: usize = 20;
