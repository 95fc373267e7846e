//! Fills the structs of [`super::file`] from a tree, in one pass. The pass does not stop at a
//! fault: the fault is noted at its place, and the [`Field`] around it becomes `Faulty`.

use std::fmt::Display;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};

use super::field::Field;
use super::file::{HeaderSource, Proxy, SecretSource};
use super::finding::{Finding, Noted, Notes};
use super::node::{Entry, Kind, Node};
use super::place::{Place, nearest, words};

/// Reads a `T`; faults are noted.
pub(super) fn read<'n, T: Deserialize<'n>>(root: &'n Node, notes: &Notes) -> Result<T, Noted> {
    T::deserialize(Reader { at: Place::root(root), notes }).map_err(Noted::by_the_reader)
}

/// Reads the `T` at a place; faults are noted.
pub(super) fn read_at<'n, T: Deserialize<'n>>(at: &Place<'n>, notes: &Notes) -> Field<T> {
    let read = Field::deserialize(Reader { at: at.clone(), notes });
    read.unwrap_or_else(|fault| Field::Faulty(Noted::by_the_reader(fault)))
}

/// The entries of the mapping at a place, each key once. Faults are noted.
pub(super) fn entries<'n>(at: &Place<'n>, notes: &Notes) -> Result<Vec<&'n Entry>, Noted> {
    let reader = Reader { at: at.clone(), notes };
    let entries = reader.entries("a mapping of names").map_err(Noted::by_the_reader)?;
    Ok(entries.collect())
}

/// Reads one value of the tree.
#[derive(Clone)]
struct Reader<'n, 'f> {
    at: Place<'n>,
    notes: &'f Notes,
}

/// Why a value could not be read. serde demands a text for it, which nobody sees.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("a finding has been noted")]
    Noted,
    /// The values that the type accepts. A type does not know its place, so the reader around it
    /// notes the finding.
    #[error("another value is accepted")]
    Accepted(String),
}

impl<'n> Reader<'n, '_> {
    fn with(&self, at: Place<'n>) -> Self {
        Self { at, notes: self.notes }
    }

    fn refuse<T>(&self, finding: Finding) -> Result<T, Fault> {
        self.notes.add(finding);
        Err(Fault::Noted)
    }

    fn wrong_kind<T>(&self, accepted: &str) -> Result<T, Fault> {
        self.refuse(self.at.wrong_kind(accepted))
    }

    /// Notes a fault that comes without its place.
    fn noted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        match result {
            Err(Fault::Accepted(accepted)) => self.refuse(self.at.wrong(accepted)),
            result => result,
        }
    }

    /// The entries of a mapping, each key once. Repeated keys are noted.
    fn entries(&self, accepted: &str) -> Result<impl Iterator<Item = &'n Entry>, Fault> {
        let Some(Kind::Mapping(mapping)) = self.at.kind() else {
            return self.wrong_kind(accepted);
        };
        for entry in &mapping.entries {
            if let Some(first) = entry.repeats {
                let (line, column) = (first.line, first.column);
                let problem = format!("found a second time, first on line {line}, column {column}");
                let finding = self.at.key(&entry.key).key_finding(problem, "each key once");
                let finding = finding.show_line().hint(REPEATED);
                self.notes.add(Finding { position: Some(entry.position), ..finding });
            }
        }
        Ok(mapping.entries.iter().filter(|entry| entry.repeats.is_none()))
    }

    fn visit_entries<V: Visitor<'n>>(
        &self,
        entries: impl Iterator<Item = &'n Entry>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let values = entries.map(|entry| {
            let key = entry.key.as_str();
            (key, self.with(self.at.key(key)))
        });
        self.noted(visitor.visit_map(MapDeserializer::new(values)))
    }

    /// An address as text, or a certificate as a mapping.
    fn proxy<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let [address, certificate] = Proxy::VARIANTS;
        match self.at.kind() {
            Some(Kind::Mapping(_)) => visit_variant(certificate, self, visitor),
            _ if self.at.text().is_some() => visit_variant(address, self, visitor),
            _ => self.wrong_kind(Proxy::ACCEPTED),
        }
    }

    /// One key of `source`. Anything else may be a secret itself and is not shown.
    fn source<V: Visitor<'n>>(self, source: &KeptElsewhere, visitor: V) -> Result<V::Value, Fault> {
        let at = &self.at;
        let finding = match at.kind() {
            Some(Kind::Mapping(mapping)) => match &mapping.entries[..] {
                [entry] if source.keys.contains(&entry.key.as_str()) => {
                    return visit_variant(&entry.key, self.with(at.key(&entry.key)), visitor);
                }
                [entry] => at.unknown_key(&entry.key, source.keys, false).or_hint(source.hint),
                entries => at.finding(format!("found {} keys", entries.len()), source.one_of),
            },
            _ if at.is_null() => at.wrong_kind(source.accepted),
            _ => at.wrong_kind(source.accepted).hint(source.hint),
        };
        self.refuse(finding)
    }
}

/// The words about a value that is kept elsewhere.
struct KeptElsewhere {
    keys: &'static [&'static str],
    one_of: &'static str,
    accepted: &'static str,
    hint: &'static str,
}

const SECRET: KeptElsewhere = KeptElsewhere {
    keys: &SecretSource::KEYS,
    one_of: "either `file` or `env`",
    accepted: SecretSource::ACCEPTED,
    hint: NO_SECRET_HERE,
};
const HEADER: KeptElsewhere = KeptElsewhere {
    keys: &HeaderSource::KEYS,
    one_of: "one of `file`, `env` and `value`",
    accepted: HeaderSource::ACCEPTED,
    hint: "put a secret in a file and write `{ file: /path }`, or in the environment and write \
           `{ env: NAME }`; a value that is no secret is written `{ value: text }`",
};
const NO_SECRET_HERE: &str = "a secret does not belong into this file: put it in a file and write \
                              `{ file: /path }`, or in the environment and write `{ env: NAME }`";
const REPEATED: &str = "remove one of the two; or a key between them is lost or indented wrongly";

/// Reads the variant `name` of an enum.
fn visit_variant<'n, V: Visitor<'n>>(
    name: &str,
    value: Reader<'n, '_>,
    visitor: V,
) -> Result<V::Value, Fault> {
    let variant = MapDeserializer::new(std::iter::once((name, value)));
    visitor.visit_enum(MapAccessDeserializer::new(variant))
}

impl<'n> Deserializer<'n> for Reader<'n, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.at.kind() {
            Some(Kind::List(_)) => self.deserialize_seq(visitor),
            Some(Kind::Mapping(_)) => self.deserialize_map(visitor),
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    /// Any scalar is text where text is wanted, as it is written: `no` is a country and not a truth
    /// value, and `007` keeps its zeros.
    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.at.text() {
            Some(text) => self.noted(visitor.visit_borrowed_str(text)),
            None => self.wrong_kind("text"),
        }
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let accepted = "`true`, `false`";
        let Some(Kind::Scalar { text, plain: true }) = self.at.kind() else {
            return self.wrong_kind(accepted);
        };
        match text.parse() {
            Ok(value) => visitor.visit_bool(value),
            Err(_) => self.refuse(self.at.wrong(accepted)),
        }
    }

    fn deserialize_u64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let accepted = "a whole number";
        let Some(Kind::Scalar { text, plain: true }) = self.at.kind() else {
            return self.wrong_kind(accepted);
        };
        match text.parse() {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => self.refuse(self.at.wrong(accepted)),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(Kind::List(items)) = self.at.kind() else { return self.wrong_kind("a list") };
        let items = (0..items.len()).map(|index| self.with(self.at.item(index)));
        self.noted(visitor.visit_seq(SeqDeserializer::new(items)))
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_entries(self.entries("a mapping of names")?, visitor)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let accepted = format!("a mapping with the keys {}", words(fields));
        let known = self.entries(&accepted)?.filter(|entry| {
            let is_known = fields.contains(&entry.key.as_str());
            if !is_known {
                let has_value = !entry.value.is_null();
                self.notes.add(self.at.unknown_key(&entry.key, fields, has_value));
                if let Some(meant) = nearest(&entry.key, fields) {
                    self.notes.misspelt(self.at.key(meant).path());
                }
            }
            is_known
        });
        self.visit_entries(known, visitor)
    }

    /// A part that is read later, value by value.
    fn deserialize_unit_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match (name, self.at.text()) {
            (SecretSource::NAME, _) => self.source(&SECRET, visitor),
            (HeaderSource::NAME, _) => self.source(&HEADER, visitor),
            (Proxy::NAME, _) => self.proxy(visitor),
            (_, Some(text)) if variants.contains(&text) => {
                let word: StrDeserializer<'_, Fault> = text.into_deserializer();
                visitor.visit_enum(word)
            }
            (_, Some(_)) => self.refuse(self.at.wrong_word(variants)),
            (_, None) => self.wrong_kind(&words(variants)),
        }
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit
        newtype_struct tuple tuple_struct identifier ignored_any
    }
}

impl<'n> IntoDeserializer<'n, Fault> for Reader<'n, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl serde::de::Error for Fault {
    /// A type that cannot read a value names the values that it accepts.
    fn custom<T: Display>(accepted: T) -> Self {
        Self::Accepted(accepted.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, accepted: &dyn Expected) -> Self {
        Self::custom(accepted)
    }
}
