//! The raw entries of a key set. Issuers publish members that no JSON library can represent: halves
//! of surrogate pairs, numbers of 400 digits, deep nesting. So only the needed members are read,
//! each on its own, and no other member can spoil the set.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json::Json;

/// The entries of a set; `None` if it is not a set.
pub(super) fn entries(document: &str) -> Option<Vec<&RawValue>> {
    let Members(members) = serde_json::from_str(document).ok()?;
    let mut keys = members.iter().filter(|(name, _)| name == "keys");
    match (keys.next(), keys.next()) {
        (Some((_, keys)), None) => serde_json::from_str(keys.get()).ok(),
        _ => None,
    }
}

/// An entry with the members `counting`; `null` if it is not an object.
pub(super) fn with_members(entry: &RawValue, counting: &[&str]) -> Json {
    let Ok(Members(members)) = serde_json::from_str(entry.get()) else { return Value::Null.into() };
    let (mut repeats, mut kept) = (false, Map::new());
    for (name, value) in &members {
        if counting.contains(&name.as_str()) {
            let value: Json =
                serde_json::from_str(value.get()).unwrap_or_else(|_| UNREADABLE.into());
            repeats |= value.repeats;
            repeats |= kept.insert(name.clone(), value.value).is_some();
        }
    }
    Json { value: Value::Object(kept), repeats }
}

/// All members of an object in their order, their values unread.
struct Members<'j>(Vec<(String, &'j RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllMembers;

        impl<'de> Visitor<'de> for AllMembers {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    all.push((name, value));
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(AllMembers)
    }
}

/// A name. Halves of surrogate pairs are replaced: no needed name has one.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyName;

        impl Visitor<'_> for AnyName {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Name, E> {
                Ok(Name(String::from_utf8_lossy(name).into_owned()))
            }
        }
        deserializer.deserialize_bytes(AnyName)
    }
}

/// Replaces an unreadable value. No needed member has this type.
const UNREADABLE: Value = Value::Bool(false);
