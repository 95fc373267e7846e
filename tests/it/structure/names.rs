//! No type name of the library stands for two things.

use std::collections::BTreeMap;

use super::{code_lines, sources};

/// The types of the configuration file as it is written. Each may have the name of the value
/// that is made of it.
const WRITTEN_FORMS: [&str; 2] = ["config/file.rs", "config/file/"];

/// Other names that may be declared more than once, each with its reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

#[test]
fn no_type_name_stands_for_two_things() {
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, _, text) in sources() {
        if !WRITTEN_FORMS.iter().any(|form| file.starts_with(form)) {
            for name in declarations(&text) {
                declared.entry(name).or_default().push(file.clone());
            }
        }
    }
    let is_exception = |name: &str| EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
    let twice: Vec<_> = declared
        .iter()
        .filter(|(name, files)| files.len() > 1 && !is_exception(name))
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect();
    assert!(twice.is_empty(), "declared more than once:\n{}", twice.join("\n"));
    for (name, reason) in EXCEPTIONS {
        let files = declared.get(name).map_or(0, Vec::len);
        assert!(files > 1, "`{name}` ({reason}) is declared {files} times: no exception any more");
    }
}

#[test]
fn declarations_of_types_are_found_and_associated_types_are_not() {
    let text = "pub struct One<'a>;\npub(super) enum Two {\n}\n    struct Three(u8);\n\
                pub(in crate::a) trait Four {\ntype Five = u8;\n    type Error = ();\n// struct Six;\n\
                fn seven() {}\nlet a = enumerate;\n";
    assert_eq!(declarations(text), ["One", "Two", "Three", "Four", "Five"]);
}

/// The names of the types that a text declares. An indented `type` belongs to an `impl` or a trait.
fn declarations(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut code = line.trim_start();
        if let Some(public) = code.strip_prefix("pub") {
            code = match public.strip_prefix('(') {
                Some(restricted) => restricted.split_once(") ")?.1,
                None => public.trim_start(),
            };
        }
        let (keyword, rest) = code.split_once(' ')?;
        let declares = match keyword {
            "struct" | "enum" | "trait" => true,
            "type" => !line.starts_with(' '),
            _ => false,
        };
        let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        declares.then(|| rest.chars().take_while(is_part).collect::<String>())
    };
    code_lines(text).filter_map(name).collect()
}
