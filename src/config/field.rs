//! The two building blocks of [`super::file`]: [`Field`] lets reading go on after a fault, and
//! [`Named`] keeps the order of the file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::finding::{Noted, Notes};
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
    /// It is there but cannot be read.
    Faulty(Noted),
}

impl<T> Field<T> {
    /// The value; that it is missing is noted.
    pub(super) fn required(
        self,
        at: &Place<'_>,
        accepted: &str,
        notes: &Notes,
    ) -> Result<T, Noted> {
        self.optional()?.ok_or_else(|| notes.missing(at.missing(accepted)))
    }

    /// The value; `None` if it is missing.
    pub(super) fn optional(self) -> Result<Option<T>, Noted> {
        match self {
            Self::Given(value) => Ok(Some(value)),
            Self::Missing => Ok(None),
            Self::Faulty(noted) => Err(noted),
        }
    }

    /// The value, if it could be read.
    pub(super) fn given(self) -> Option<T> {
        self.optional().ok().flatten()
    }

    /// The value, if it could be read, to change it.
    pub(super) fn as_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Missing | Self::Faulty(_) => None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    pub(super) fn as_ref(&self) -> Field<&T> {
        match self {
            Self::Given(value) => Field::Given(value),
            Self::Missing => Field::Missing,
            Self::Faulty(noted) => Field::Faulty(*noted),
        }
    }
}

/// The items of a list that must not be empty, as [`each`] reads them.
pub(super) fn some<T, U>(
    items: Vec<Field<T>>,
    at: &Place<'_>,
    accepted: &str,
    notes: &Notes,
    read: impl FnMut(&Place<'_>, T) -> Result<U, Noted>,
) -> Result<Vec<U>, Noted> {
    if items.is_empty() {
        return Err(notes.add(at.finding("found an empty list", accepted)));
    }
    each(items, at, notes, read)
}

/// The items of a list, each as `read` makes it at its place. Every item is read, so that the
/// faults of all of them are found.
pub(super) fn each<T, U>(
    items: impl IntoIterator<Item = Field<T>>,
    at: &Place<'_>,
    notes: &Notes,
    mut read: impl FnMut(&Place<'_>, T) -> Result<U, Noted>,
) -> Result<Vec<U>, Noted> {
    let read = items.into_iter().enumerate().map(|(index, item)| {
        let at = at.item(index);
        read(&at, item.required(&at, "a value", notes)?)
    });
    // Every item is read before the first fault counts.
    read.collect::<Vec<_>>().into_iter().collect()
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
                let faulty = |error| Field::Faulty(Noted::by_the_reader::<D::Error>(error));
                Ok(T::deserialize(value).map_or_else(faulty, Field::Given))
            }
        }

        // As an option, because serde fills in a missing one instead of stopping.
        deserializer.deserialize_option(FieldVisitor(PhantomData))
    }
}

/// For the defaults that the schema shows, and for the configuration in force.
impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Given(value) => value.serialize(serializer),
            Self::Missing | Self::Faulty(_) => serializer.serialize_none(),
        }
    }
}

/// A part of the file that is read later, value by value: a hundred thousand tenants do not have to
/// be in memory as they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UnreadVisitor;

        impl Visitor<'_> for UnreadVisitor {
            type Value = Unread;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Unread, E> {
                Ok(Unread)
            }
        }

        deserializer.deserialize_unit_struct("Unread", UnreadVisitor)
    }
}

impl Serialize for Unread {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
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

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
