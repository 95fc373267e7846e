//! The words that the glossary has retired are in no identifier, string or comment of `src/`.

use std::collections::BTreeMap;
use std::path::Path;

use super::texts;

/// The retired words and phrases. Each stands for an identifier too: `set aside` for `set_aside`
/// and `SetAside`.
const RETIRED: [&str; 55] = [
    "admit again",
    "anew",
    "asker",
    "askers",
    "asleep",
    "change over",
    "complain",
    "complains",
    "crowded",
    "door",
    "doors",
    "doorstep",
    "doubts",
    "emptied",
    "enter again",
    "found back",
    "hall",
    "halls",
    "is clients own",
    "landed",
    "lane",
    "lanes",
    "leave",
    "leaves",
    "makes for",
    "met",
    "nap",
    "naps",
    "origin callers",
    "places",
    "put in force",
    "say no room",
    "set aside",
    "sets aside",
    "shake hands",
    "share",
    "shares",
    "show alone",
    "show tenant",
    "slot",
    "slots",
    "so long as",
    "starter",
    "starters",
    "take back",
    "taken back",
    "takes back",
    "told of",
    "turn away",
    "turned away",
    "turns away",
    "untold",
    "wake up",
    "whoever",
    "withdrawn",
];

#[test]
fn the_words_that_the_glossary_retires_are_nowhere_in_the_sources() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (file, text) in texts(&sources) {
        let file = file.strip_prefix(&sources).unwrap().display().to_string();
        for (word, line) in retired_in(&file.replace(['/', '.'], " ")) {
            found.entry(word).or_default().push(format!("{file}: its name, {line}"));
        }
        for (word, line) in retired_in(&text) {
            found.entry(word).or_default().push(format!("{file}:{line}"));
        }
    }
    let report = found.iter().fold(String::new(), |report, (word, places)| {
        let shown = places.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let more = if places.len() > SHOWN { ", …" } else { "" };
        report + &format!("{:4} {word}: {shown}{more}\n", places.len())
    });
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_retired_word_is_found_in_identifiers_strings_and_comments_and_across_lines() {
    let lines = |text: &str| retired_in(text);
    for text in
        ["run::hall", "struct Hall;", "MAX_HALL", "//! the hall", "\"a hall.\"", "HallDoorX"]
    {
        assert!(lines(text).contains(&("hall", 1)), "{text}");
    }
    for text in
        ["fn set_aside()", "struct SetAside;", "/// is set\n    /// aside", "\"set \\\n aside\""]
    {
        assert_eq!(lines(text), [("set aside", 1)], "{text}");
    }
    assert_eq!(lines("ok\n\nHTTPDoor door2 doors"), [("door", 3), ("door", 3), ("doors", 3)]);
    for text in ["shall", "challenge", "indoor", "a method", "set it aside", "methods", "planet"] {
        assert_eq!(lines(text), [], "{text}");
    }
}

/// The retired words of a text, each with its line.
fn retired_in(text: &str) -> Vec<(&'static str, usize)> {
    let words = words(text);
    let mut found = Vec::new();
    for (at, (_, line)) in words.iter().enumerate() {
        let rest = || words[at..].iter().map(|(word, _)| word.as_str());
        let begins_here = |retired: &&str| {
            let mut rest = rest();
            retired.split(' ').all(|part| rest.next() == Some(part))
        };
        found.extend(RETIRED.into_iter().filter(begins_here).map(|retired| (retired, *line)));
    }
    found
}

/// The words of a text in small letters, each with its line. `CamelCase`, `snake_case` and digits
/// part words.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let characters: Vec<char> = text.chars().collect();
        let mut word = String::new();
        for (at, c) in characters.iter().enumerate() {
            let next_is_small = characters.get(at + 1).is_some_and(char::is_ascii_lowercase);
            let after_small = at > 0 && characters[at - 1].is_ascii_lowercase();
            let begins = c.is_ascii_uppercase() && (after_small || next_is_small);
            if (begins || !c.is_ascii_alphabetic()) && !word.is_empty() {
                words.push((std::mem::take(&mut word), line));
            }
            if c.is_ascii_alphabetic() {
                word.push(c.to_ascii_lowercase());
            }
        }
        if !word.is_empty() {
            words.push((word, line));
        }
    }
    words
}

/// How many places of a word the report shows.
const SHOWN: usize = 4;
