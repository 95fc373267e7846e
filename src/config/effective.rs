//! The configuration in force, as the status API shows it: with the defaults of keys that were not
//! given, and without secrets and users. A secret is shown as the place that it is read from.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::file::{File, Tenant};

/// The configuration in force. It takes about as much memory as its file, which has at most 10 MiB,
/// and is only made for the status API.
#[derive(Clone, Debug, Default)]
pub struct EffectiveConfig {
    /// All sections but `tenants`.
    sections: Box<RawValue>,
    tenants: HashMap<Arc<str>, Arc<EffectiveTenant>>,
}

/// A tenant of the configuration in force.
#[derive(Clone, Debug)]
pub struct EffectiveTenant {
    keys: Box<RawValue>,
    user_source: Box<str>,
}

impl EffectiveConfig {
    pub(super) fn sections_of(file: &File) -> Self {
        // Thousands of tenants are shown one by one.
        Self { sections: raw(&without_nulls(file)), tenants: HashMap::new() }
    }

    pub(super) fn with_tenants(self, tenants: HashMap<Arc<str>, Arc<EffectiveTenant>>) -> Self {
        Self { tenants, ..self }
    }

    /// All sections but `tenants`, as JSON.
    pub fn sections(&self) -> &RawValue {
        &self.sections
    }

    /// The tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<&EffectiveTenant> {
        self.tenants.get(name).map(|tenant| &**tenant)
    }
}

/// The keys of a tenant that have a value, without secrets and users.
pub(super) fn shown(tenant: &Tenant) -> Value {
    without_nulls(tenant)
}

impl EffectiveTenant {
    pub(super) fn of(tenant: &Tenant) -> Self {
        let user_source = user_source(Some(tenant)).into();
        Self { keys: raw(&without_nulls(tenant)), user_source }
    }

    /// Its keys, as JSON.
    pub fn keys(&self) -> &RawValue {
        &self.keys
    }

    /// Where Bold BI keeps its user, such as `azure_ad`.
    pub fn user_source(&self) -> &str {
        &self.user_source
    }
}

fn user_source(tenant: Option<&Tenant>) -> String {
    let credential = tenant.and_then(|tenant| tenant.credential.as_ref().given());
    let source = credential.and_then(|credential| credential.user_source.as_ref().given());
    let word = source.and_then(|source| serde_json::to_value(source).ok());
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// `part` without the keys that have no value.
fn without_nulls(part: &impl Serialize) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(parts) => {
                parts.retain(|_, part| !part.is_null());
                parts.values_mut().for_each(strip);
            }
            Value::Array(parts) => parts.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(part).expect("all keys of these types are texts");
    strip(&mut value);
    value
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a value is JSON")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::finding::Notes;
    use super::super::node::Node;
    use super::super::place::Place;
    use super::super::{read, schema};
    use super::*;

    /// Every key of the file. The value of each key that may hold a secret or a user is a canary.
    const EVERY_KEY: &str = include_str!("effective/every_key.yaml");

    fn effective(text: &str) -> EffectiveConfig {
        let notes = Notes::default();
        let root = Node::read(text, &notes).unwrap();
        let file = read::read::<File>(&root, &notes).unwrap();
        let at = Place::root(&root).key("tenants");
        let tenants = read::entries(&at, &notes).unwrap_or_default();
        let tenants = tenants.into_iter().map(|entry| {
            let tenant = read::read_at::<Tenant>(&at.tenant(entry, None), &notes).given().unwrap();
            (entry.key.as_str().into(), Arc::new(EffectiveTenant::of(&tenant)))
        });
        let effective = EffectiveConfig::sections_of(&file).with_tenants(tenants.collect());
        let faults = notes.finish(Ok(()), "test.yaml");
        assert!(faults.is_ok(), "{faults:?}");
        effective
    }

    fn keys_of(value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(parts) => {
                keys.extend(parts.keys().cloned());
                parts.values().for_each(|part| keys_of(part, keys));
            }
            Value::Array(parts) => parts.iter().for_each(|part| keys_of(part, keys)),
            _ => {}
        }
    }

    #[test]
    fn every_key_is_shown_and_no_secret_and_no_user_in_it() {
        let effective = effective(EVERY_KEY);
        let acme = effective.tenant("acme").unwrap();
        assert_eq!(acme.user_source(), "azure_ad");
        let text = format!("[{},{}]", effective.sections(), acme.keys());
        assert!(EVERY_KEY.matches("canary").count() > 10);
        assert!(!text.contains("canary"), "{text}");
        let mut shown = BTreeSet::new();
        keys_of(&serde_json::from_str(&text).unwrap(), &mut shown);
        // A new key needs a line in the file, and a decision: is it shown, or hidden?
        let missing: Vec<_> =
            schema::keys().into_iter().filter(|key| !shown.contains(key)).collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn a_key_that_is_not_given_has_its_default() {
        let effective = effective("servers: { main: { url: \"http://bi\" } }\ntenants: {}\n");
        let sections: Value = serde_json::from_str(effective.sections().get()).unwrap();
        assert_eq!(sections["servers"]["main"]["timeouts"]["connect"], "10s");
        assert_eq!(sections["limits"]["max_body"], "200MiB");
        assert!(sections.get("audit").is_none(), "it has no default");
    }

    #[test]
    fn a_secret_is_shown_as_its_place_unless_that_may_be_the_secret() {
        let shown = |source: &str| {
            let text = format!("tenants: {{ acme: {{ credential: {{ password: {source} }} }} }}\n");
            let effective = effective(&text);
            let keys: Value = serde_json::from_str(effective.tenant("acme")?.keys().get()).ok()?;
            Some(keys["credential"]["password"].to_string())
        };
        for (source, expected) in [
            ("{ file: /run/secrets/acme }", r#"{"file":"/run/secrets/acme"}"#),
            ("{ env: ACME_SECRET }", r#"{"env":"ACME_SECRET"}"#),
            ("{ file: hunter2 }", r#"{"file":"***"}"#),
            ("{ env: X6FULIs0qTTqIjHxDQ4hxkDqIYTs2fvy }", r#"{"env":"***"}"#),
        ] {
            assert_eq!(shown(source).as_deref(), Some(expected));
        }
    }
}
