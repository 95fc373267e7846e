//! The borders of the house: who may import whom.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from top to bottom; each may import only what stands on a lower line.
const ORDER: [&[&str]; 17] = [
    &["main"],
    &["cli"],
    &["run"],
    &["proxy"],
    &["admin"],
    &["config"],
    &["boldbi", "jwks"],
    &["gateway"],
    &["refusal", "headers"],
    &["token"],
    &["policy", "throttle"],
    &["caller"],
    &["tenant"],
    &["cors"],
    &["request", "fetch"],
    &["host", "secret", "telemetry", "trust"],
    &["invisible", "plain_file"],
];

#[test]
fn every_module_imports_only_modules_below_it() {
    let mut wrong = Vec::new();
    for (file, module, text) in sources() {
        let level = level_of(&module);
        for imported in imports(&text) {
            if imported != module && level_of(&imported) <= level {
                wrong.push(format!("{file} imports `{imported}`, which is not below `{module}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_data_path_names_pingora() {
    for (file, module, text) in sources() {
        if !matches!(module.as_str(), "proxy" | "run") {
            let named = code_lines(&text).any(|line| line.contains("pingora::"));
            assert!(!named, "{file} names pingora");
        }
    }
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
    assert!(level_of("cli") < level_of("policy"));
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
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            let is_tests = inside.file_stem().is_some_and(|stem| stem == "tests");
            if !is_tests {
                found.push((inside.display().to_string(), module, text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were found");
    found
}

fn level_of(module: &str) -> usize {
    ORDER
        .iter()
        .position(|level| level.contains(&module))
        .unwrap_or_else(|| panic!("`{module}` has no place in the order of imports"))
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
