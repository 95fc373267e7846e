//! No circle inside a module: its files import each other in one direction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{code_lines, sources};

#[test]
fn the_files_of_a_module_import_each_other_in_one_direction() {
    let modules: BTreeSet<String> = sources().into_iter().map(|(_, module, _)| module).collect();
    for module in modules {
        let circle = Files::of(&module).circle().map(|files| files.join(" -> "));
        assert_eq!(circle, None, "the files of `{module}` import each other in a circle");
    }
}

#[test]
fn a_circle_of_two_files_is_found_also_through_names_of_their_module() {
    let files = |upper: &str, lower: &str, leaf: &str| {
        let top = "mod upper;\nmod lower;\npub use self::upper::{First, Second};\n";
        Files::parse(
            "module",
            &[
                ("module.rs", top),
                ("module/upper.rs", upper),
                ("module/lower.rs", lower),
                ("module/lower/leaf.rs", leaf),
            ],
        )
    };
    let down = "use super::lower::{Third, Fourth};\n";
    assert_eq!(files(down, "use super::Fifth;\n", "").circle(), None);
    assert_eq!(files(down, "// use super::upper::First;\n", "").circle(), None);
    let circle = Some(vec!["lower".into(), "upper".into(), "lower".into()]);
    for up in [
        "use super::upper::First;\n",
        "use super::{Fifth, upper::First};\n",
        "use super::{\n    Fifth,\n    Second as Other,\n};\n",
        "fn f() -> crate::module::upper::First {}\n",
        "use crate::module::First;\n",
    ] {
        assert_eq!(files(down, up, "").circle(), circle, "{up}");
    }
    for up in ["use super::super::upper::First;\n", "use crate::module::{First};\n"] {
        assert_eq!(files(down, "mod leaf;\n", up).circle(), circle, "{up}");
    }
    assert_eq!(files(down, "mod leaf;\n", "use super::Third;\n").circle(), None);
}

/// The files directly below a module, and which of them each imports. What is below such a file
/// counts as part of it.
struct Files {
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Files {
    fn of(module: &str) -> Self {
        let all = sources();
        let texts: Vec<_> = all
            .iter()
            .filter(|(_, of, _)| of == module)
            .map(|(file, _, text)| (file.as_str(), text.as_str()))
            .collect();
        Self::parse(module, &texts)
    }

    fn parse(module: &str, texts: &[(&str, &str)]) -> Self {
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let part = |file: &str| {
            let below = Path::new(file).strip_prefix(module).ok()?;
            let first = below.components().next()?.as_os_str().to_str()?;
            Some(first.trim_end_matches(".rs").to_owned())
        };
        for (file, _) in texts {
            imports.extend(part(file).map(|part| (part, BTreeSet::new())));
        }
        let known: BTreeSet<String> = imports.keys().cloned().collect();
        let top = texts.iter().find(|(file, _)| part(file).is_none());
        let names = top.map_or_else(BTreeMap::new, |(_, text)| re_exports(text, &known));
        for (file, text) in texts {
            let Some(own) = part(file) else { continue };
            let depth = Path::new(file).components().count() - 1;
            let supers = "super::".repeat(depth);
            let code: String = code_lines(text).map(|line| line.to_owned() + "\n").collect();
            for name in names_behind(&code, &supers)
                .into_iter()
                .chain(names_behind(&code, &format!("crate::{module}::")))
            {
                let target = if known.contains(&name) { Some(&name) } else { names.get(&name) };
                if let Some(target) = target.filter(|target| **target != own) {
                    imports.get_mut(&own).expect("each part is there").insert(target.clone());
                }
            }
        }
        Self { imports }
    }

    /// The files of a circle, the first of which is also the last.
    fn circle(&self) -> Option<Vec<String>> {
        self.imports.keys().find_map(|start| self.path(start, start, &mut BTreeSet::new()))
    }

    /// The way from one file to another, if there is one.
    fn path(&self, from: &str, to: &str, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
        for next in &self.imports[from] {
            if next == to {
                return Some(vec![from.to_owned(), to.to_owned()]);
            }
            if seen.insert(next.clone())
                && let Some(mut rest) = self.path(next, to, seen)
            {
                rest.insert(0, from.to_owned());
                return Some(rest);
            }
        }
        None
    }
}

/// The names that a module has from its files, and the file that each comes from.
fn re_exports(text: &str, files: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for file in files {
        for name in names_behind(text, &format!("{file}::")) {
            names.insert(name, file.clone());
        }
    }
    names
}

/// The first names of all paths that begin with `prefix`, groups in braces included.
fn names_behind(code: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| {
        let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_part).collect::<String>()
    };
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
            || (prefix.starts_with("super::") && code[..at].ends_with("super::"))
        {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(parts(group).into_iter().map(word)),
            None => names.push(word(rest)),
        }
    }
    names.retain(|name| !name.is_empty() && name != "super");
    names
}

/// The parts of a group of imports, up to its end; what is in braces inside a part stays in it.
fn parts(group: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[begin..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts
}
