//! The token store of the fleet, in one line.

use serde_json::Value;

use super::style::{Style, Tone};
use super::text::{list, word};

/// The words about `store`; `None` if there is none. Its last fault is among the problems while it
/// is away.
pub(super) fn in_words(store: &Value, since: &str, style: &Style) -> Option<String> {
    let (state, tone) = match store["state"].as_str()? {
        "in_use" => ("in use", Tone::Good),
        "away" => ("away", Tone::Doubtful),
        other => (other, Tone::Dim),
    };
    let mut words = format!("{}, since {since}", style.paint(state, tone));
    for (name, key) in [("", "engine"), ("master ", "master")] {
        if store[key].is_string() {
            words += &format!(", {name}{}", word(&store[key]));
        }
    }
    let keys = list(&store["sealing_keys"]);
    match keys.iter().find(|key| key["seals"] == true) {
        Some(key) if keys.len() > 1 => {
            words += &format!(", {} sealing keys, number {} seals", keys.len(), key["number"]);
        }
        _ => words += ", 1 sealing key",
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_store_is_in_use_or_away_with_its_engine_and_its_keys() {
        let key = |number, seals| json!({ "number": number, "seals": seals, "opened": 0 });
        let style = Style::plain();
        let store = json!({
            "state": "in_use", "engine": "redis 7.0.15", "master": "10.0.0.1:6379",
            "sealing_keys": [key(1, true), key(2, false)],
        });
        assert_eq!(
            in_words(&store, "3 min ago", &style).unwrap(),
            "in use, since 3 min ago, redis 7.0.15, master 10.0.0.1:6379, 2 sealing keys, number 1 seals"
        );
        let away = json!({ "state": "away", "engine": null, "sealing_keys": [key(1, true)] });
        let words = in_words(&away, "5 s ago", &style).unwrap();
        assert_eq!(words, "away, since 5 s ago, 1 sealing key");
        assert_eq!(in_words(&Value::Null, "", &style), None);
    }
}
