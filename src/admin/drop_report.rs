//! The words about dropped tokens. They warn where a changed secret has given no token yet: then
//! only tokens by the former secret keep requests from failing.

pub(super) fn message(tenant: &str, of_user: bool, dropped: usize, is_unproven: bool) -> String {
    let of = if of_user { "of this user of" } else { "of" };
    let mut message = match (dropped, of_user) {
        (0, true) => format!(
            "nothing was dropped: no token of a user of exactly this name of tenant `{tenant}` is \
             cached, upper and lower case included"
        ),
        (0, false) => format!("nothing was dropped: tenant `{tenant}` has no token"),
        (1, _) => format!(
            "the cached token {of} tenant `{tenant}` was dropped; the next request exchanges again"
        ),
        (dropped, _) => format!(
            "{dropped} cached tokens {of} tenant `{tenant}` were dropped; the next request exchanges \
             again"
        ),
    };
    if is_unproven {
        message += UNPROVEN;
    }
    message
}

const UNPROVEN: &str = "; warning: the changed secret of the tenant has given no token yet, so that requests fail until \
                        Bold BI takes it: `boldgate doctor` tries it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_warn_of_an_unproven_secret_and_of_nothing_else() {
        for (of_user, dropped) in [(true, 0), (false, 0), (true, 1), (false, 1), (false, 5)] {
            let quiet = message("acme", of_user, dropped, false);
            assert!(quiet.contains("`acme`") && !quiet.contains("warning"), "{quiet}");
            let warning = message("acme", of_user, dropped, true);
            assert!(warning.starts_with(&quiet) && warning.contains("no token yet"), "{warning}");
        }
    }
}
