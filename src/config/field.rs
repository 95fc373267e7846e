//! The two building blocks of [`super::file`]: [`Field`], which lets reading go on after a fault,
//! and [`Named`], which keeps the order of the file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::finding::Notes;
use super::place::Place;

/// A value in the file as far as it could be read. Reading one never fails, so that the faults of
/// all of them are found at once.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// It is there and has the right form; or it has a default.
    Given(T),
    /// It is not there.
    #[default]
    Missing,
    /// It is there but cannot be read, which has been noted.
    Faulty,
}

impl<T> Field<T> {
    /// The value; that it is missing is noted.
    pub(super) fn required(self, at: &Place<'_>, accepted: &str, notes: &Notes) -> Option<T> {
        if let Self::Missing = self {
            notes.add(at.missing(accepted));
        }
        self.given()
    }

    /// The value, lent out.
    pub(super) fn as_given(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Missing | Self::Faulty => None,
        }
    }

    /// The value, if there is one.
    pub(super) fn given(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Missing | Self::Faulty => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(Field::Missing)
            }

            fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
                // The reader has noted the fault on its way here.
                Ok(T::deserialize(value).map_or(Field::Faulty, Field::Given))
            }
        }

        // As an option, because serde fills in a missing one instead of stopping.
        deserializer.deserialize_option(FieldVisitor(PhantomData))
    }
}

/// For the defaults that the schema shows.
impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Given(value) => value.serialize(serializer),
            Self::Missing | Self::Faulty => serializer.serialize_none(),
        }
    }
}

/// Things by their names, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub Vec<(String, Field<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Named(all))
            }
        }

        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}
