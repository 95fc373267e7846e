//! The structure of the crate: which module may import which.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod circles;
mod names;
mod words;

#[test]
fn every_module_imports_only_modules_below_it() {
    let order = Order::of_the_library();
    let mut wrong = Vec::new();
    for (file, module, text) in sources() {
        for imported in imports(&text) {
            if imported != module && !order.is_below(&imported, &module) {
                wrong.push(format!("{file} imports `{imported}`, which is not below `{module}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_in_the_library_lists_each_module_once_and_no_other() {
    let mut listed = Order::of_the_library().0.concat();
    listed.sort();
    let modules: BTreeSet<_> = sources().into_iter().map(|(_, module, _)| module).collect();
    let modules: Vec<_> = modules.into_iter().filter(|module| module != PROGRAM).collect();
    assert_eq!(listed, modules);
}

#[test]
fn the_map_of_the_architecture_has_a_row_for_each_module_and_no_second_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, map) = text.split_once("\n## The map\n").unwrap();
    let (map, _) = map.split_once("\n## ").unwrap();
    let names = map.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let names = names.flat_map(|(names, _)| names.split(", "));
    let mut shown: Vec<_> = names.map(|name| name.trim_matches('`')).collect();
    shown.sort_unstable();
    let mut modules = Order::of_the_library().0.concat();
    modules.push(PROGRAM.to_owned());
    modules.sort();
    assert_eq!(shown, modules);
}

#[test]
fn one_module_reads_all_responses_and_alone_names_pingora() {
    // Two readers would disagree about some response. The only one is `http1::ClientSession`.
    for (file, module, text) in sources() {
        if module != "http1" {
            let client = code_lines(&text).any(|line| line.contains("hyper::client"));
            assert!(!client, "{file} names a client of hyper");
            let named = code_lines(&text).any(|line| line.contains("pingora::"));
            assert!(!named, "{file} names pingora");
        }
    }
}

#[test]
fn tests_change_texts_by_edits_that_must_match() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut wrong = Vec::new();
    for (file, text) in texts(&tests) {
        if !file.ends_with("support/edit.rs") && !file.ends_with("structure.rs") {
            let lines = silent_replacements(&text).into_iter();
            wrong.extend(lines.map(|line| format!("{}:{line}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "use `edit`, `edit_all` or `edit_any` in\n{}", wrong.join("\n"));
}

#[test]
fn a_replacement_that_may_match_nothing_is_found() {
    let text =
        "a.replace(\"x\", \"y\")\nb\n    .replacen(\n        from,\n        to,\n        1,\n    )";
    assert_eq!(silent_replacements(text), [1, 3]);
    let text = "a.replace('-', \"_\").replace(['a', 'b'], \"\").replacen(|c: char| true, \"\", 1)";
    assert_eq!(silent_replacements(text), [0; 0]);
    assert_eq!(silent_replacements("mem::replace(&mut a, b); a.edit(\"x\", \"y\")"), [0; 0]);
}

#[test]
fn no_file_is_named_for_a_kind_of_thing() {
    for (file, _, _) in sources() {
        let name = Path::new(&file).file_stem().unwrap().to_str().unwrap();
        let drawer = matches!(name, "utils" | "util" | "types" | "helpers" | "common" | "misc");
        assert!(!drawer, "{file} is named for a kind of thing, not for a concept");
    }
}

#[test]
fn the_check_of_imports_sees_a_wrong_one() {
    assert_eq!(imports("use crate::cli::Cli;\n"), ["cli"]);
    assert_eq!(imports("    let x = crate::boldbi::hint(e);"), ["boldbi"]);
    assert_eq!(imports("// use crate::cli::Cli;\n"), [""; 0]);
}

#[test]
fn the_order_of_imports_is_read_from_the_documentation() {
    let text =
        "//! A library:\n//!\n//! ```text\n//! top  other   says what it is\n//! low\n//! ```\n";
    let order = Order::parse(text);
    assert_eq!(order.0, [vec!["top", "other"], vec!["low"]]);
    assert!(order.is_below("low", "other") && order.is_below("top", PROGRAM));
    assert!(!order.is_below("other", "top") && !order.is_below("top", "low"));
}

#[test]
#[should_panic(expected = "`none` is not in the order of imports of src/lib.rs")]
fn a_module_that_is_not_in_the_order_is_reported() {
    Order::parse("//! ```text\n//! top\n//! ```\n").is_below("none", "top");
}

/// Every source file, the module it belongs to, and its text up to its tests.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = first.trim_end_matches(".rs").to_owned();
            if module == "lib" {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = without_tests(&text).to_owned();
            let is_tests =
                inside.with_extension("").components().any(|part| part.as_os_str() == "tests");
            if !is_tests {
                found.push((inside.display().to_string(), module, text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were found");
    found
}

/// The text of a file up to its module of tests.
fn without_tests(text: &str) -> &str {
    let mut ends = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
    let is_module =
        |at: &usize| text[*at..].lines().nth(1).is_some_and(|line| line.contains("mod "));
    ends.find(is_module).map_or(text, |end| &text[..end])
}

/// All files of Rust below a folder, with their texts.
fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut texts(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Lines on which a text is replaced that need not be there. Replacing characters is no change of a
/// configuration: they are given as `'…'`, `['…', '…']` or a closure.
fn silent_replacements(text: &str) -> Vec<usize> {
    let calls = [".replace(", ".replacen("];
    let mut found: Vec<usize> = calls
        .iter()
        .flat_map(|call| text.match_indices(call).map(|(at, _)| (at, at + call.len())))
        .filter(|(_, end)| !text[*end..].trim_start().starts_with(['\'', '[', '|']))
        .map(|(at, _)| 1 + text[..at].matches('\n').count())
        .collect();
    found.sort_unstable();
    found
}

/// The modules from top to bottom. Each may import only what is on a lower line.
struct Order(Vec<Vec<String>>);

impl Order {
    fn of_the_library() -> Self {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
        Self::parse(&fs::read_to_string(library).unwrap())
    }

    /// Reads the first block of the documentation: a line for each level, its modules and perhaps
    /// an explanation, all of them two spaces apart. An explanation has more than one word.
    fn parse(text: &str) -> Self {
        let block = text.split("```text\n").nth(1).expect("the documentation has a block");
        let lines = block.lines().map_while(|line| line.strip_prefix("//! "));
        let lines = lines.take_while(|line| !line.starts_with("```"));
        let modules = |line: &str| {
            let parts = line.split("  ").map(str::trim).filter(|part| !part.is_empty());
            parts.filter(|part| !part.contains(' ')).map(str::to_owned).collect()
        };
        Self(lines.map(modules).collect())
    }

    /// Whether `upper` may import `lower`.
    fn is_below(&self, lower: &str, upper: &str) -> bool {
        upper == PROGRAM || self.level(lower) > self.level(upper)
    }

    fn level(&self, module: &str) -> usize {
        self.0
            .iter()
            .position(|level| level.iter().any(|listed| listed == module))
            .unwrap_or_else(|| panic!("`{module}` is not in the order of imports of src/lib.rs"))
    }
}

fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code_lines(text) {
        for (at, _) in line.match_indices("crate::") {
            let name: String = line[at + "crate::".len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            found.push(name);
        }
    }
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The program, which is above the library.
const PROGRAM: &str = "main";
