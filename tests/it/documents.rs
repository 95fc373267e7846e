//! The documents: short lines, links that resolve, and names of tests that exist.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no text of ours.
const SKIPPED_FOLDERS: [&str; 3] = ["target", "node_modules", ".git"];
const MAX_PROSE_COLUMNS: usize = 120;
const MAX_COMMENT_COLUMNS: usize = 100;
const MAX_ARCHITECTURE_LINES: usize = 150;
const MAX_DECISION_LINES: usize = 10;

#[test]
fn no_line_of_prose_is_longer_than_120_columns() {
    let found = check(&files("md"), |_, text| long_prose(text));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_comment_is_longer_than_100_columns() {
    let found = check(&files("rs"), |_, text| long_comments(text));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_comment_of_the_sources_begins_with_a_clause_without_a_subject() {
    let sources: Vec<_> =
        files("rs").into_iter().filter(|path| path.starts_with(root().join("src"))).collect();
    let found = check(&sources, |_, text| riddles(text));
    assert!(found.is_empty(), "name the subject:\n{}", found.join("\n"));
}

#[test]
fn every_link_between_documents_resolves() {
    let found = check(&files("md"), |path, text| {
        let folder = path.parent().unwrap();
        broken_links(text, |target| read_target(folder, path, target))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_packages_have_the_files_that_their_documents_link_to() {
    let script = read("deploy/packages/build.sh");
    let copied = script.split_once("cp -r --parents ").unwrap().1.split_once("\"$doc\"").unwrap().0;
    let copied: Vec<_> = copied.split_whitespace().filter(|word| *word != "\\").collect();
    assert!(copied.contains(&"README.md") && copied.contains(&"docs"), "{copied:?}");
    let is_in =
        |path: &Path, all: &[&str]| all.iter().any(|one| path.starts_with(root().join(one)));
    let of_packages: Vec<_> = files("md").into_iter().filter(|path| is_in(path, &copied)).collect();
    let found = check(&of_packages, |path, text| {
        broken_links(text, |target| {
            let target = if target.is_empty() { path } else { &path.with_file_name(target) };
            let target = target.canonicalize().ok()?;
            // Links of developers, to what is in the repository alone, are named in `inside.py`.
            (is_in(&target, &copied) || is_in(&target, &REPOSITORY_ALONE))
                .then(|| fs::read_to_string(target).unwrap_or_default())
        })
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
    let inside = read("deploy/packages/inside.py");
    assert!(inside.contains("(deploy/(helm|kustomize|compose|systemd)|benches|tests|src)"));
}

/// As `deploy/packages/inside.py` has them.
const REPOSITORY_ALONE: [&str; 7] = [
    "deploy/helm",
    "deploy/kustomize",
    "deploy/compose",
    "deploy/systemd",
    "benches",
    "tests",
    "src",
];

#[test]
fn every_test_that_the_invariants_name_exists() {
    let tests = texts(&["src", "tests/it"]);
    let targets = fs::read_to_string(root().join("Makefile")).unwrap();
    let found = wrong_holders(&read("docs/invariants.md"), &tests, &targets);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_test_that_the_threat_table_names_exists() {
    let tests = texts(&["src", "tests/it"]);
    let named = named_tests(&read("SECURITY.md"));
    assert!(named.len() > 10, "{named:?}");
    let lost: Vec<_> = named.iter().filter(|name| !is_holder(name, &tests, "")).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// The tests in the last column of a table that has the head `Test` there.
fn named_tests(markdown: &str) -> Vec<String> {
    let mut named = Vec::new();
    for table in markdown.split("\n\n").filter(|block| {
        block.lines().next().is_some_and(|head| head.trim_end().ends_with("| Test |"))
    }) {
        for row in table.lines().skip(2) {
            let last = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
            let name = last.trim().trim_matches('`');
            assert!(!name.is_empty(), "a row without a test: {row}");
            named.push(name.to_owned());
        }
    }
    named
}

#[test]
fn the_tests_of_a_table_are_those_of_its_last_column() {
    let table = "x\n\n| Value | Test |\n|---|---|\n| a `b` | `it_holds` |\n| c | `it_waits` |\n\ny | Test |\n";
    assert_eq!(named_tests(table), ["it_holds", "it_waits"]);
}

#[test]
fn every_source_file_that_the_documents_name_exists() {
    let documents = files("md").into_iter().filter(|path| !path.ends_with("CHANGELOG.md"));
    let exists = |file: &str| ["", "src"].iter().any(|at| root().join(at).join(file).exists());
    let found = check(&documents.collect::<Vec<_>>(), |_, text| lost_files(text, exists));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_architecture_and_each_decision_stay_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= MAX_ARCHITECTURE_LINES, "ARCHITECTURE.md has {lines} lines");
    let decisions: Vec<_> = files("md")
        .into_iter()
        .filter(|path| path.starts_with(root().join("docs/decisions")))
        .collect();
    assert!(decisions.len() > 5, "the decisions were found");
    let found = check(&decisions, |_, text| long_sections(text));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_code_of_a_refusal_has_a_row_in_the_troubleshooting() {
    let document = read("docs/troubleshooting.md");
    let (_, rows) = document.split_once("## Codes of refusals").unwrap();
    let mut codes = refusal_codes(&read("src/refusal/response.rs"));
    let tokens = read("src/token.rs");
    let (_, of_exchanges) = tokens.split_once("fn code(&self)").unwrap();
    codes.extend(literals(of_exchanges.split_once("\n    }\n").unwrap().0));
    assert!(codes.len() > 25, "the codes were found: {codes:?}");
    let missing = codes.iter().filter(|code| !rows.contains(&format!("| `{code}` |")));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "no row in docs/troubleshooting.md for {missing:?}");
}

#[test]
fn codes_of_refusals_are_found_in_the_sources() {
    let text = "(408, \"one_code\", \"A text.\")\n(\n  431,\n  \"two_codes\",\n)\nallow(\"no_code\")\n\
        (12, \"number\")";
    assert_eq!(refusal_codes(text), ["one_code", "two_codes"]);
    assert_eq!(literals("A => \"a\",\nB => {\n \"b_c\"\n}"), ["a", "b_c"]);
}

/// The texts behind a status, such as `(404, "tenant_unknown"`.
fn refusal_codes(text: &str) -> Vec<String> {
    let parts: Vec<_> = text.split('"').collect();
    let is_status = |before: &str| {
        let digits = before.trim_end().strip_suffix(',').unwrap_or_default().trim_end();
        let digits = digits.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.len() == 3
    };
    let is_code = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let found = parts.windows(2).filter(|pair| is_status(pair[0]) && is_code(pair[1]));
    found.map(|pair| pair[1].to_owned()).collect()
}

fn literals(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn long_lines_of_prose_are_found_and_nothing_else() {
    let long = "word ".repeat(25);
    let (table, code) = (format!("| {long} |"), format!("    {long}"));
    let target = format!("- [this](https://example.com/{})", "x".repeat(120));
    let breakable = format!("see {target}");
    let definition = format!("[this]: https://example.com/{}", "x".repeat(120));
    let text = format!(
        "short\n{long}\n{table}\n\n{code}\n\n```sh\n{long}\n```\n{target}\n{breakable}\n{definition}\n- item\n    {long}\n"
    );
    assert_eq!(long_prose(&text), ["2: 125 columns", "11: 154 columns", "14: 129 columns"]);
}

#[test]
fn long_comments_are_found_and_long_code_is_not() {
    let long = "word ".repeat(20);
    let text = format!("// short\n    /// {long}\n//! {long}\nlet x = \"// {long}\";\n");
    assert_eq!(long_comments(&text), ["2: 108 columns", "3: 104 columns"]);
}

#[test]
fn comments_that_begin_with_a_clause_are_found_and_others_are_not() {
    let text = "/// What is wrong.\n//! Whoever comes.\n    // Those of it.\n/// What\n";
    assert_eq!(riddles(text).len(), 4);
    let text = "/// The fault. What is more.\n/// Whatsoever.\nlet a = \"What\";\n//\n";
    assert_eq!(riddles(text), [""; 0]);
}

#[test]
fn broken_links_are_found_and_right_ones_are_not() {
    let here = "# A title, and `code`\n[a](#a-title-and-code) [b](#nowhere) [c](other.md#part)\n\
        [d](other.md#lost) [e](gone.md) [f](https://example.com) `[g](gone.md)`\n\
        ```\n# not a title\n[h](gone.md)\n```\n[i]: gone.md\n[j](#not-a-title)\n| [k](gone.md) |\n\
        # Twice\n# Twice\n[l](#twice-1) [m](#twice-2)\n";
    let read = |target: &str| match target {
        "" => Some(here.to_owned()),
        "other.md" => Some("## Part\n".to_owned()),
        _ => None,
    };
    let found = broken_links(here, read);
    let expected =
        ["#nowhere", "other.md#lost", "gone.md", "gone.md", "#not-a-title", "gone.md", "#twice-2"];
    assert_eq!(found, expected.map(|target| format!("`{target}` leads nowhere")));
}

#[test]
fn invariants_without_a_test_that_exists_are_found() {
    let tests = "fn it_holds() {}\nasync fn it_waits() {}\n";
    let good = "# Invariants\n\n`a` is explained.\n\n## Subject\n\nA promise.\n\n- `it_holds`\n\n\
        Another,\nof two lines.\n\n- `it_waits`\n- `make soak`\n";
    assert_eq!(wrong_holders(good, tests, "soak: build\n"), [""; 0]);
    let bad = "# Invariants\n\n## Subject\n\nNobody holds this.\n\nThis neither.\n\n\
        - `it_hold`\n- `make none`\n- words\n\n## Next\n\nNor this.\n";
    let expected = [
        "`Nobody holds this.` has no test",
        "no test or target is `it_hold`",
        "no test or target is `make none`",
        "no test or target is `words`",
        "`Nor this.` has no test",
    ];
    assert_eq!(wrong_holders(bad, tests, "soak: build\n"), expected);
}

#[test]
fn names_of_source_files_that_are_gone_are_found() {
    let text =
        "in `src/here.rs`, below gone.rs:\n```\na[\"run/lost.rs<br/>run/here.rs: b\"]\n```\nrs";
    let exists = |file: &str| file.ends_with("here.rs");
    assert_eq!(lost_files(text, exists), ["there is no `gone.rs`", "there is no `run/lost.rs`"]);
}

#[test]
fn sections_that_are_too_long_are_found() {
    let text = format!(
        "# Title\n{}## One\n\n{}## Two\n{}",
        "x\n".repeat(30),
        "x\n".repeat(10),
        "x\n".repeat(11)
    );
    assert_eq!(long_sections(&text), ["`Two` has 11 lines"]);
}

/// The findings of `find` in each of the files, with the file's name in front.
fn check(files: &[PathBuf], find: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        found.extend(find(path, &text).into_iter().map(|finding| format!("{name}: {finding}")));
    }
    found
}

/// Lines of prose that are too long. Tables and code have no limit, and no line that is one link.
fn long_prose(markdown: &str) -> Vec<String> {
    let can_be_broken = |line: &str| {
        let text = line.trim_start().trim_start_matches("- ");
        let is_definition = text.starts_with('[') && text.contains("]: ");
        !text.starts_with('|') && !is_definition && text.contains(' ')
    };
    let prose = prose(markdown).filter(|(_, line)| can_be_broken(line));
    too_long(prose.map(|(number, line)| (number, line.chars().count())), MAX_PROSE_COLUMNS)
}

/// Comment lines of Rust that are too long. Rustfmt does not wrap them.
fn long_comments(rust: &str) -> Vec<String> {
    let lines = (1..).zip(rust.lines()).filter(|(_, line)| line.trim_start().starts_with("//"));
    too_long(lines.map(|(number, line)| (number, line.chars().count())), MAX_COMMENT_COLUMNS)
}

/// Comments that begin with a clause instead of their subject (see CONTRIBUTING).
fn riddles(rust: &str) -> Vec<String> {
    let clauses = ["What", "Who", "Whom", "Whoever", "Those", "So long", "As many"];
    let is_riddle = |comment: &str| {
        let words = comment.trim_start_matches(['/', '!']).trim_start();
        clauses
            .iter()
            .filter_map(|clause| words.strip_prefix(clause))
            .any(|behind| !behind.starts_with(char::is_alphanumeric))
    };
    let lines = rust.lines().enumerate().map(|(index, line)| (index + 1, line.trim_start()));
    let comments = lines.filter(|(_, line)| line.starts_with("//") && is_riddle(line));
    comments.map(|(number, line)| format!("{number}: {line}")).collect()
}

fn too_long(lines: impl Iterator<Item = (usize, usize)>, limit: usize) -> Vec<String> {
    lines
        .filter(|(_, columns)| *columns > limit)
        .map(|(number, columns)| format!("{number}: {columns} columns"))
        .collect()
}

/// Sections of a document of decisions that are too long; the text above the first has no limit.
fn long_sections(markdown: &str) -> Vec<String> {
    let sections = markdown.split("\n## ").skip(1).map(|section| {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        (title, text.lines().filter(|line| !line.is_empty()).count())
    });
    sections
        .filter(|(_, lines)| *lines > MAX_DECISION_LINES)
        .map(|(title, lines)| format!("`{title}` has {lines} lines"))
        .collect()
}

/// The source files that a document names, in diagrams too, and that do not exist.
fn lost_files(markdown: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-');
    let is_source = |word: &str| word.rsplit_once('.').is_some_and(|(_, kind)| kind == "rs");
    markdown
        .split(|c| !is_path(c))
        .filter(|word| is_source(word) && !word.starts_with("//") && !exists(word))
        .map(|name| format!("there is no `{name}`"))
        .collect()
}

/// The links of a document that lead nowhere; `read` gives the text of a file, "" is the document.
fn broken_links(markdown: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let leads_somewhere = |target: &String| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        read(file).is_some_and(|text| anchor.is_empty() || anchors(&text).contains(&anchor.into()))
    };
    prose(markdown)
        .flat_map(|(_, line)| targets(&without_code(line)))
        .filter(|target| !target.contains("://") && !leads_somewhere(target))
        .map(|target| format!("`{target}` leads nowhere"))
        .collect()
}

/// The targets of the links in a line, or of the link that it defines.
fn targets(line: &str) -> Vec<String> {
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        return vec![target.to_owned()];
    }
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    inline.map(str::to_owned).collect()
}

/// The text that a link leads to; empty for a folder or a file that is not text.
fn read_target(folder: &Path, this: &Path, target: &str) -> Option<String> {
    let path = if target.is_empty() { this.to_owned() } else { folder.join(target) };
    path.exists().then(|| fs::read_to_string(path).unwrap_or_default())
}

/// The anchors that GitHub gives to the headings of a document.
fn anchors(markdown: &str) -> Vec<String> {
    let mut seen = HashMap::new();
    let titles = prose(markdown).filter_map(|(_, line)| line.starts_with('#').then_some(line));
    titles
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept =
                title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let before = seen.entry(anchor.clone()).or_insert(0);
            *before += 1;
            if *before > 1 { format!("{anchor}-{}", *before - 1) } else { anchor }
        })
        .collect()
}

/// The faults in the lists of tests. Below the heading of a subject, every
/// paragraph is a promise, and the list behind it names its tests.
fn wrong_holders(invariants: &str, tests: &str, makefile: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for subject in invariants.split("\n## ").skip(1) {
        let blocks: Vec<&str> = subject.split("\n\n").skip(1).map(str::trim).collect();
        let is_list = |block: &&str| block.starts_with("- ");
        for (index, block) in blocks.iter().enumerate() {
            if is_list(block) {
                let names =
                    block.lines().map(|line| line.trim_start_matches("- ").trim_matches('`'));
                let unknown = names.filter(|name| !is_holder(name, tests, makefile));
                wrong.extend(unknown.map(|name| format!("no test or target is `{name}`")));
            } else if !blocks.get(index + 1).is_some_and(is_list) {
                wrong.push(format!("`{block}` has no test"));
            }
        }
    }
    wrong
}

fn is_holder(name: &str, tests: &str, makefile: &str) -> bool {
    match name.strip_prefix("make ") {
        Some(target) => makefile.lines().any(|line| line.starts_with(&format!("{target}:"))),
        None => tests.contains(&format!("fn {name}(")),
    }
}

/// The numbered lines of a document that are no code.
fn prose(markdown: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut fenced, mut indented, mut after_blank) = (false, false, true);
    (1..).zip(markdown.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        indented = line.starts_with("    ") && (indented || after_blank);
        after_blank = line.is_empty();
        !fenced && !fence && !indented
    })
}

/// A line without its spans of code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The repository's files with an extension.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() {
                if !SKIPPED_FOLDERS.contains(&&*name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 5, "the files were found");
    found.sort_unstable();
    found
}

/// All Rust below some folders, one file after the other.
fn texts(folders: &[&str]) -> String {
    let inside =
        |path: &PathBuf| folders.iter().any(|folder| path.starts_with(root().join(folder)));
    files("rs").into_iter().filter(inside).map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
