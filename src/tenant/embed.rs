//! The settings of a tenant's embed endpoint: which dashboards web pages may embed, and the values
//! by which the server filters what each user sees.

use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

/// The dashboards that web pages may embed, and the values that filter them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedSettings {
    /// The modes that a page may ask for.
    pub modes: Vec<EmbedMode>,
    /// The ids of the dashboards that may be embedded; `None` if the user's rights alone decide.
    pub dashboards: Option<Vec<String>>,
    /// Longest lifetime of the embed tokens.
    pub max_lifetime: Duration,
    /// How the server is asked.
    pub via: EmbedVia,
    /// The filters of data sources.
    pub filters: Vec<EmbedValue>,
    /// The dashboard parameters.
    pub parameters: Vec<EmbedValue>,
    /// The custom attributes of the user.
    pub attributes: Vec<EmbedValue>,
    /// Whether the gateway also serves the data of dashboards to pages, so that they hold no token.
    pub masked: bool,
}

impl EmbedSettings {
    /// The names of all values, for the audit log.
    pub fn value_names(&self) -> impl Iterator<Item = &str> {
        self.values().map(|value| value.name.as_str())
    }

    /// The claims that callers need, once for each value.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.values().filter_map(|value| match &value.source {
            ValueSource::Claim(claim) => Some(claim.as_str()),
            ValueSource::Fixed(_) => None,
        })
    }

    fn values(&self) -> impl Iterator<Item = &EmbedValue> {
        self.filters.iter().chain(&self.parameters).chain(&self.attributes)
    }
}

/// The purpose of an embedded page, as the server names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum EmbedMode {
    /// A dashboard is looked at.
    View,
    /// A dashboard is edited.
    Design,
    /// A connection is made.
    Connection,
    /// A data source is edited.
    Datasource,
    /// The assistant is asked.
    AiAssistant,
}

impl EmbedMode {
    /// The word for it in configuration, logs and on the wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The mode of this word, spelled exactly.
    pub fn parse(word: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|mode| mode.as_str() == word)
    }
}

/// The form in which the server is asked for an embed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbedVia {
    /// A signed query, which all versions take.
    Signed,
    /// A JSON body with the secret, which versions from 14.1 on take.
    Json,
}

/// A value that filters what a user sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedValue {
    /// The name of the filter, the parameter or the attribute.
    pub name: String,
    /// The source of the value.
    pub source: ValueSource,
    /// The comparison; by default `=` for one text and `IN` for a list.
    pub operator: Option<FilterOperator>,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A text of the configuration.
    Fixed(String),
    /// This claim of the JWT that proved the caller.
    Claim(String),
}

/// The comparison of a filter with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterOperator {
    /// It is the value.
    Equal,
    /// It is among the values.
    In,
    /// It is not among the values.
    NotIn,
}

impl FilterOperator {
    /// The word for it in configuration and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
        }
    }
}
