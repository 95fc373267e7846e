//! A place in the file: a key path with its position and its value. A finding is made from
//! it, and it decides which text of the file the finding may show.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::finding::{Excerpt, Finding, Position};
use super::node::{CONFIDENTIAL, Entry, Kind, Node};

/// Where a value stands, or would stand if it were given.
#[derive(Clone, Debug)]
pub(super) struct Place<'n> {
    path: String,
    node: Option<&'n Node>,
    /// The position of its key, or of itself if it has none.
    named_at: Position,
    confidential: bool,
    /// The file that it is in; `None` for the configuration file itself.
    file: Option<&'n Arc<str>>,
    /// Stand in for the keys that are not given, where this is a tenant.
    defaults: Option<Defaults<'n>>,
    /// The tenant that uses the value, where it is a default.
    used_by: Option<UsedBy<'n>>,
}

/// The section whose keys stand in for those that a tenant does not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults<'n>(&'n Node);

/// By the values alone, wherever they stand.
impl Hash for Defaults<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash_values(state);
    }
}

#[derive(Clone, Copy, Debug)]
struct UsedBy<'n> {
    tenant: &'n str,
    at: Position,
    file: Option<&'n Arc<str>>,
}

impl fmt::Display for UsedBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tenant {}, ", quoted(self.tenant))?;
        match self.file {
            Some(file) => write!(f, "{file}:{}", self.at),
            None => write!(f, "line {}", self.at.line),
        }
    }
}

impl<'n> Place<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            path: String::new(),
            node: Some(node),
            named_at: Position { line: 1, column: 1 },
            confidential: false,
            file: None,
            defaults: None,
            used_by: None,
        }
    }

    /// The root of a file of tenants, as if it were the section `tenants`.
    pub(super) fn of_tenant_file(node: &'n Node, file: &'n Arc<str>) -> Self {
        Self { path: TENANTS.to_owned(), file: Some(file), ..Self::root(node) }
    }

    /// The place of the tenant in this `entry`, with the section that stands in for its keys.
    pub(super) fn tenant(&self, entry: &'n Entry, defaults: Option<Defaults<'n>>) -> Self {
        let (node, named_at) = (Some(&entry.value), entry.position);
        let path = below(&self.path, &entry.key);
        let used_by = UsedBy { tenant: &entry.key, at: named_at, file: self.file };
        Self { path, node, named_at, defaults, used_by: Some(used_by), ..self.clone() }
    }

    /// The value as a section that stands in for the keys of tenants.
    pub(super) fn as_defaults(&self) -> Option<Defaults<'n>> {
        self.node.map(Defaults)
    }

    /// Whether the key is given here, and not only by the section that stands in.
    pub(super) fn has_own(&self, key: &str) -> bool {
        self.node.is_some_and(|node| node.entry(key).is_some())
    }

    /// The file that it is in; `None` for the configuration file itself.
    pub(super) fn file(&self) -> Option<&'n Arc<str>> {
        self.file
    }

    /// The place of a key's value, given or not.
    pub(super) fn key(&self, key: &str) -> Self {
        let entry = self.node.and_then(|n| n.entry(key));
        if let (None, Some(Defaults(section))) = (entry, self.defaults)
            && let Some(entry) = section.entry(key)
        {
            let path = below(TENANT_DEFAULTS, key);
            let confidential = CONFIDENTIAL.contains(&key) || entry.value.confidential;
            let (node, named_at) = (Some(&entry.value), entry.position);
            let (file, defaults, used_by) = (None, None, self.used_by);
            return Self { path, node, named_at, confidential, file, defaults, used_by };
        }
        // The keys of a tenant itself are used by it alone.
        let used_by = self.used_by.filter(|_| self.defaults.is_none() && self.is_default());
        Self {
            path: below(&self.path, key),
            node: entry.map(|e| &e.value),
            named_at: entry.map_or(self.named_at, |e| e.position),
            confidential: self.confidential
                || CONFIDENTIAL.contains(&key)
                || entry.is_some_and(|e| e.value.confidential),
            file: self.file,
            defaults: None,
            used_by,
        }
    }

    /// Whether it is in the section that stands in for the keys of tenants.
    fn is_default(&self) -> bool {
        self.path.starts_with(TENANT_DEFAULTS)
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
            file: self.file,
            defaults: None,
            used_by: self.used_by,
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

    /// The same on a part of the text, at the place of that part.
    pub(super) fn finding_in(&self, part: &str, problem: String, accepted: &str) -> Finding {
        self.finding_at(self.position_of(part), problem, accepted)
    }

    /// Where a part of the text begins; the beginning of the text, if it has several lines.
    fn position_of(&self, part: &str) -> Position {
        let at = self.node.map_or(self.named_at, |node| node.position);
        match self.kind() {
            Some(Kind::Scalar { text, plain }) if !text.contains('\n') => {
                let quote = usize::from(!plain);
                let before = text.find(part).map(|end| quote + text[..end].chars().count());
                Position { column: at.column + before.unwrap_or_default(), ..at }
            }
            _ => at,
        }
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
        let used_by = self.used_by.filter(|_| self.is_default());
        Finding {
            file: self.file.cloned(),
            position: Some(position),
            path: self.path.clone(),
            problem: problem.into(),
            accepted: Some(accepted.into()),
            used_by: used_by.map(|used_by| used_by.to_string()),
            hint: None,
            excerpt: Excerpt::None,
        }
    }

    /// The value; `None` if the key is not given.
    pub(super) fn kind(&self) -> Option<&'n Kind> {
        self.node.map(|node| &node.kind)
    }

    /// Whether there is a value.
    pub(super) fn is_given(&self) -> bool {
        self.node.is_some()
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

/// The path of a key. Names are the operator's: a key that could not be a name is put in quotes.
fn below(path: &str, key: &str) -> String {
    let is_name = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let is_plain = is_name && !key.is_empty() && key.len() <= MAX_SHOWN;
    // Thirty keys of a hundred thousand tenants are looked at: `format!` takes a third of a second.
    let mut below = String::with_capacity(path.len() + 1 + key.len());
    below.push_str(path);
    if !path.is_empty() {
        below.push('.');
    }
    if is_plain {
        below.push_str(key);
    } else {
        below.push_str(&quoted(key));
    }
    below
}

/// The keys of tenants, and of the section that stands in for theirs.
pub(super) const TENANTS: &str = "tenants";
pub(super) const TENANT_DEFAULTS: &str = "tenant_defaults";
const MAX_SHOWN: usize = 64;
const MAX_WORD: usize = 20;
