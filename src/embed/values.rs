//! The values that filter what a user sees: from the configuration and from verified claims. A
//! value that cannot be had refuses the call, so that no call goes on without a filter.

use std::fmt;

use serde_json::Value;

use super::{ClaimFault, EmbedFault, operator};
use crate::caller::jwt::VerifiedClaims;
use crate::tenant::{EmbedValue, EmbedVia, FilterOperator, ValueSource};

/// A value as it is sent to the server. It may be personal data, so its `Debug` has only the name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GrantedValue {
    name: String,
    operator: FilterOperator,
    text: FilterText,
}

/// One text, or a list of texts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum FilterText {
    /// One text, not empty.
    One(String),
    /// At least one text, none of them empty.
    List(Vec<String>),
}

impl FilterText {
    /// The texts.
    pub fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::List(texts) => texts,
        }
    }
}

impl GrantedValue {
    pub(super) fn look_up(
        value: &EmbedValue,
        via: EmbedVia,
        claims: Option<&VerifiedClaims>,
    ) -> Result<Self, EmbedFault> {
        let text = match &value.source {
            ValueSource::Fixed(text) => FilterText::One(text.clone()),
            ValueSource::Claim(claim) => {
                let fault = |fault| EmbedFault::Claim {
                    name: value.name.clone(),
                    claim: claim.clone(),
                    fault,
                };
                let text = claimed(claims, claim).map_err(fault)?;
                let is_list = matches!(text, FilterText::List(_));
                if is_list && value.operator == Some(FilterOperator::Equal) {
                    return Err(fault(ClaimFault::List));
                }
                if !text.texts().iter().all(|text| can_be_sent(text, via)) {
                    return Err(fault(ClaimFault::Characters));
                }
                text
            }
        };
        let operator = operator(value, matches!(text, FilterText::List(_)));
        Ok(Self { name: value.name.clone(), operator, text })
    }

    pub(super) fn for_trial(value: &EmbedValue) -> Self {
        let text = match &value.source {
            ValueSource::Fixed(text) => text.clone(),
            ValueSource::Claim(_) => NO_ROW.to_owned(),
        };
        let (name, operator) = (value.name.clone(), operator(value, false));
        Self { name, operator, text: FilterText::One(text) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn operator(&self) -> FilterOperator {
        self.operator
    }

    /// One text, or several.
    pub fn text(&self) -> &FilterText {
        &self.text
    }
}

impl fmt::Debug for GrantedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantedValue({}, [redacted])", self.name)
    }
}

/// A value that no row has.
const NO_ROW: &str = "boldgate-trial";

fn claimed(claims: Option<&VerifiedClaims>, claim: &str) -> Result<FilterText, ClaimFault> {
    let value = claims.ok_or(ClaimFault::NoClaims)?.value(claim).ok_or(ClaimFault::Missing)?;
    // A reader that trims would find no filter in blanks.
    let filled = |text: &String| if is_blank(text) { Err(ClaimFault::Empty) } else { Ok(()) };
    match value {
        Value::String(text) => {
            filled(text)?;
            Ok(FilterText::One(text.clone()))
        }
        Value::Array(texts) if texts.is_empty() => Err(ClaimFault::Empty),
        Value::Array(texts) => {
            let text = |value: &Value| match value {
                Value::String(text) => filled(text).map(|()| text.clone()),
                _ => Err(ClaimFault::Type),
            };
            texts.iter().map(text).collect::<Result<_, _>>().map(FilterText::List)
        }
        _ => Err(ClaimFault::Type),
    }
}

/// Whether a text can be part of a call. In a signed query, no character of it may mean anything to
/// any reader, encoded or decoded. JSON carries any text but control characters.
pub(crate) fn can_be_sent(text: &str, via: EmbedVia) -> bool {
    match via {
        EmbedVia::Signed => is_plain(text),
        EmbedVia::Json => !is_blank(text) && !text.chars().any(char::is_control),
    }
}

/// Checks that the name of a user can be part of a call. In a signed query it may have `@`, too.
///
/// # Errors
/// When it is empty, or has another character.
pub(crate) fn check_subject(subject: &str, via: EmbedVia) -> Result<(), EmbedFault> {
    match via {
        EmbedVia::Signed if !is_all_of(OF_SUBJECTS, subject) => Err(EmbedFault::Subject),
        EmbedVia::Signed | EmbedVia::Json => Ok(()),
    }
}

fn is_blank(text: &str) -> bool {
    let begins_blank = text.bytes().next().is_none_or(|b| !b.is_ascii_graphic());
    begins_blank && text.chars().all(char::is_whitespace)
}

/// Whether a text has only characters that are the same encoded and decoded.
fn is_plain(text: &str) -> bool {
    is_all_of(OF_VALUES, text)
}

/// Whether a text has characters of this kind alone, and at least one.
fn is_all_of(kind: u8, text: &str) -> bool {
    !text.is_empty() && text.bytes().fold(kind, |all, b| all & KINDS[usize::from(b)]) == kind
}

/// The kinds of each character. A look at a table takes a part of the time of comparisons, for each
/// character of each call.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0u8;
    loop {
        kinds[byte as usize] = match byte {
            b'@' => OF_SUBJECTS,
            b'_' | b'.' | b'-' => OF_VALUES | OF_SUBJECTS,
            _ if byte.is_ascii_alphanumeric() => OF_VALUES | OF_SUBJECTS,
            _ => 0,
        };
        if byte == u8::MAX {
            break kinds;
        }
        byte += 1;
    }
};
const OF_VALUES: u8 = 1;
const OF_SUBJECTS: u8 = 2;
