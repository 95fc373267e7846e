//! Changes of a text, such as a configuration. A change that finds nothing to change fails.

/// Changes of a text.
pub trait Edit {
    /// Replaces `from`, which must be there exactly once.
    fn edit(&self, from: &str, to: &str) -> String;

    /// Replaces every `from`, of which there must be at least one.
    fn edit_all(&self, from: &str, to: &str) -> String;

    /// Replaces every `from`, if there is any. For placeholders that only some texts have, and for
    /// outputs of which a part differs between runs.
    fn edit_any(&self, from: &str, to: &str) -> String;
}

impl Edit for str {
    #[track_caller]
    fn edit(&self, from: &str, to: &str) -> String {
        let found = self.matches(from).count();
        assert!(found == 1, "`{from}` is there {found} times instead of once in:\n{self}");
        self.replace(from, to)
    }

    #[track_caller]
    fn edit_all(&self, from: &str, to: &str) -> String {
        assert!(self.contains(from), "`{from}` is not in:\n{self}");
        self.replace(from, to)
    }

    fn edit_any(&self, from: &str, to: &str) -> String {
        self.replace(from, to)
    }
}

#[test]
fn a_pattern_that_is_there_once_is_replaced() {
    assert_eq!("a: 1, b: 2".edit("1", "3"), "a: 3, b: 2");
    assert_eq!("a: 1, b: 1".edit_all("1", "3"), "a: 3, b: 3");
    assert_eq!("a: 1, b: 2".edit_any("4", "3"), "a: 1, b: 2");
}

#[test]
#[should_panic(expected = "`3` is there 0 times instead of once in:\na: 1, b: 2")]
fn a_pattern_that_is_not_there_fails() {
    let _ = "a: 1, b: 2".edit("3", "4");
}

#[test]
#[should_panic(expected = "`1` is there 2 times instead of once in:\na: 1, b: 1")]
fn a_pattern_that_is_there_twice_fails() {
    let _ = "a: 1, b: 1".edit("1", "4");
}

#[test]
#[should_panic(expected = "`3` is not in:\na: 1, b: 2")]
fn a_pattern_for_all_matches_without_a_match_fails() {
    let _ = "a: 1, b: 2".edit_all("3", "4");
}
