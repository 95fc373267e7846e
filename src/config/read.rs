//! Fills the structs of [`super::file`] from a tree, in one pass that does not stop at a fault: a
//! fault is noted where it is, and the [`Field`] around it becomes [`Field::Faulty`].

use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::field::Field;
use super::file::{Proxy, SecretSource};
use super::finding::Notes;
use super::node::{Entry, Kind, Mapping, Node};
use super::place::{Place, quoted};

/// Reads a `T`; faults are noted.
pub(super) fn read<'n, T: Deserialize<'n>>(root: &'n Node, notes: &Notes) -> Field<T> {
    let reader = Reader { node: root, place: Place::root(root), notes };
    Field::deserialize(reader).unwrap_or(Field::Faulty)
}

/// Reads one value of the tree.
struct Reader<'n, 'f> {
    node: &'n Node,
    place: Place<'n>,
    notes: &'f Notes,
}

/// Why a value could not be read.
#[derive(Debug)]
enum Fault {
    /// It has been noted.
    Noted,
    /// What would have been accepted, not yet noted: this comes from the type that is read, which
    /// does not know where it is.
    Accepted(String),
}

impl<'n> Reader<'n, '_> {
    fn child(&self, node: &'n Node, place: Place<'n>) -> Self {
        Self { node, place, notes: self.notes }
    }

    fn wrong_kind<T>(&self, accepted: &str) -> Result<T, Fault> {
        self.notes.add(self.place.wrong_kind(accepted));
        Err(Fault::Noted)
    }

    /// Notes a fault that comes without its place.
    fn noted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| {
            if let Fault::Accepted(accepted) = fault {
                self.notes.add(self.place.wrong(accepted));
            }
            Fault::Noted
        })
    }

    fn scalar(&self) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping, each key once; keys that are there again are noted.
    fn entries(&self, accepted: &str) -> Result<Vec<&'n Entry>, Fault> {
        let Kind::Mapping(Mapping { entries, .. }) = &self.node.kind else {
            return self.wrong_kind(accepted);
        };
        for entry in entries {
            if let Some(first) = entry.repeats {
                let place = self.place.key(&entry.key);
                let mut finding = place.key_finding(
                    format!(
                        "found a second time, first on line {}, column {}",
                        first.line, first.column
                    ),
                    "each key once",
                );
                finding.position = Some(entry.position);
                self.notes.add(finding);
            }
        }
        Ok(entries.iter().filter(|e| e.repeats.is_none()).collect())
    }

    fn visit_entries<V: Visitor<'n>>(
        self,
        entries: Vec<&'n Entry>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let map = Entries { reader: &self, rest: entries.into_iter(), value: None };
        let result = visitor.visit_map(map);
        self.noted(result)
    }

    /// An address as text, or a certificate as a mapping.
    fn proxy<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let [address, certificate] = Proxy::VARIANTS;
        let key = match &self.node.kind {
            Kind::Scalar { .. } if !self.node.is_null() => address,
            Kind::Mapping(_) => certificate,
            _ => return self.wrong_kind(Proxy::ACCEPTED),
        };
        visitor.visit_enum(Source { key, value: self })
    }

    /// One of `file` and `env`. Anything else may be the secret itself and is not shown.
    fn secret_source<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let finding = match &self.node.kind {
            Kind::Mapping(Mapping { entries, .. }) => match &entries[..] {
                [entry] if SecretSource::KEYS.contains(&entry.key.as_str()) => {
                    let value = self.child(&entry.value, self.place.key(&entry.key));
                    return visitor.visit_enum(Source { key: &entry.key, value });
                }
                [entry] => self.place.unknown_key(&entry.key, &SecretSource::KEYS, false),
                entries => self
                    .place
                    .finding(format!("found {} keys", entries.len()), "either `file` or `env`"),
            },
            _ if self.node.is_null() => self.place.wrong_kind(SecretSource::ACCEPTED),
            _ => self.place.wrong_kind(SecretSource::ACCEPTED).hint(
                "a secret does not belong into this file: put it in a file and write \
                 `{ file: /path }`, or in the environment and write `{ env: NAME }`",
            ),
        };
        self.notes.add(finding);
        Err(Fault::Noted)
    }
}

impl<'n> Deserializer<'n> for Reader<'n, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Scalar { .. } => self.deserialize_str(visitor),
            Kind::List(_) => self.deserialize_seq(visitor),
            Kind::Mapping(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    /// Any scalar is text where text is wanted, as it is written: `no` is a country, not a truth
    /// value, and `007` keeps its zeros.
    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.scalar() {
            Some(text) => {
                let result = visitor.visit_borrowed_str(text);
                self.noted(result)
            }
            None => self.wrong_kind("text"),
        }
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_u64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let accepted = "a whole number";
        let Kind::Scalar { text, plain: true } = &self.node.kind else {
            return self.wrong_kind(accepted);
        };
        match text.parse() {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => self.noted(Err(Fault::Accepted(accepted.to_owned()))),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::List(items) => {
                let result = visitor.visit_seq(Items { reader: &self, all: items, next: 0 });
                self.noted(result)
            }
            _ => self.wrong_kind("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = self.entries("a mapping of names")?;
        self.visit_entries(entries, visitor)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let accepted = || format!("a mapping with the keys {}", super::place::words(fields));
        let (known, unknown): (Vec<_>, Vec<_>) = self
            .entries(&accepted())?
            .into_iter()
            .partition(|entry| fields.contains(&entry.key.as_str()));
        for entry in unknown {
            let has_value = !entry.value.is_null();
            self.notes.add(self.place.unknown_key(&entry.key, fields, has_value));
        }
        self.visit_entries(known, visitor)
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SecretSource::NAME {
            return self.secret_source(visitor);
        }
        if name == Proxy::NAME {
            return self.proxy(visitor);
        }
        match self.scalar() {
            Some(text) if variants.contains(&text) => {
                let word: StrDeserializer<'_, Fault> = text.into_deserializer();
                visitor.visit_enum(word)
            }
            Some(_) => {
                self.notes.add(self.place.wrong_word(variants));
                Err(Fault::Noted)
            }
            None => self.wrong_kind(&super::place::words(variants)),
        }
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit
        unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'r, 'n, 'f> {
    reader: &'r Reader<'n, 'f>,
    all: &'n [Node],
    next: usize,
}

impl<'n> SeqAccess<'n> for Items<'_, 'n, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.all.get(self.next) else { return Ok(None) };
        let place = self.reader.place.item(self.next);
        self.next += 1;
        seed.deserialize(self.reader.child(node, place)).map(Some)
    }
}

struct Entries<'r, 'n, 'f> {
    reader: &'r Reader<'n, 'f>,
    rest: std::vec::IntoIter<&'n Entry>,
    value: Option<&'n Entry>,
}

impl<'n> MapAccess<'n> for Entries<'_, 'n, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.value = self.rest.next();
        let Some(entry) = self.value else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry = self.value.take().ok_or(Fault::Noted)?;
        seed.deserialize(self.reader.child(&entry.value, self.reader.place.key(&entry.key)))
    }
}

/// A variant of one value, by its key.
struct Source<'n, 'f> {
    key: &'n str,
    value: Reader<'n, 'f>,
}

impl<'n, 'f> EnumAccess<'n> for Source<'n, 'f> {
    type Error = Fault;
    type Variant = SourceValue<'n, 'f>;

    fn variant_seed<V: DeserializeSeed<'n>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Fault> {
        let key: StrDeserializer<'_, Fault> = self.key.into_deserializer();
        Ok((seed.deserialize(key)?, SourceValue(self.value)))
    }
}

struct SourceValue<'n, 'f>(Reader<'n, 'f>);

impl<'n> VariantAccess<'n> for SourceValue<'n, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.0.wrong_kind("nothing")
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'n>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        self.0.wrong_kind("text")
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        self.0.wrong_kind("text")
    }
}

impl serde::de::Error for Fault {
    /// What a type that cannot read a value says is what it would accept.
    fn custom<T: fmt::Display>(accepted: T) -> Self {
        Self::Accepted(accepted.to_string())
    }

    fn invalid_type(_: serde::de::Unexpected<'_>, accepted: &dyn serde::de::Expected) -> Self {
        Self::Accepted(accepted.to_string())
    }

    fn invalid_value(_: serde::de::Unexpected<'_>, accepted: &dyn serde::de::Expected) -> Self {
        Self::Accepted(accepted.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted => f.write_str("noted"),
            Self::Accepted(accepted) => write!(f, "accepted: {}", quoted(accepted)),
        }
    }
}

impl std::error::Error for Fault {}
