//! The key `embed` of a tenant as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::field::Field;
use crate::config::quantity::Period;
use crate::config::redact::hidden;

/// The dashboards that web pages may embed, by the gateway's own endpoints below
/// `/boldgate/embed/`. Callers need the class `embed` among their `routes`, and pages of other
/// origins must be listed in `cors.origins`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Embed {
    /// The modes that a page may ask for.
    #[serde(default = "default_modes")]
    #[schemars(length(min = 1))]
    pub modes: Field<Vec<Field<Mode>>>,
    /// The ids of the dashboards that may be embedded. Without it, the rights of the user in Bold
    /// BI decide.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub dashboards: Field<Vec<Field<String>>>,
    /// Longest lifetime of an embed token. A page that asks for less gets less.
    #[serde(default = "default_max_lifetime")]
    pub max_lifetime: Field<Period>,
    /// How Bold BI is asked: by a signed query, which all its versions take, or by a JSON body,
    /// which versions from 14.1 on take. Only JSON carries custom attributes, and values with
    /// characters other than letters, digits, `_`, `.` and `-`. Its tokens live for 24 hours.
    #[serde(default = "default_via")]
    pub via: Field<Via>,
    /// Filters of data sources that each embedded dashboard gets.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub datasource_filters: Field<Vec<Field<FilterValue>>>,
    /// Dashboard parameters that each embedded dashboard gets.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub dashboard_parameters: Field<Vec<Field<FilterValue>>>,
    /// Custom attributes that the user of each embedded dashboard gets; with `via: json` only.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub custom_attributes: Field<Vec<Field<FilterValue>>>,
    /// Masked mode: pages get the data of dashboards from the gateway, at `/masked/` and the
    /// tenant's name, and hold no token at all. The rights of the user in Bold BI decide what they
    /// see, so that it cannot be had together with `dashboards` or filters.
    #[serde(default = "no_masked")]
    pub masked: Field<bool>,
}

/// A value that filters what a user sees: exactly one of `claim` and `value`. Where the claim is
/// missing, empty or of another type, the call is refused.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterValue {
    /// Its name in Bold BI.
    #[schemars(length(min = 1))]
    pub name: Field<String>,
    /// The claim of the caller's JWT that has the value: one text, or a list of texts.
    #[serde(default)]
    pub claim: Field<String>,
    /// The value itself, the same for all users.
    #[serde(default, serialize_with = "hidden")]
    pub value: Field<String>,
    /// How Bold BI compares; `=` for one text and `IN` for a list if not given.
    #[serde(default)]
    pub operator: Field<Operator>,
}

/// The purpose of an embedded page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Look at a dashboard.
    View,
    /// Edit dashboards.
    Design,
    /// Make connections.
    Connection,
    /// Edit data sources.
    Datasource,
    /// Ask the assistant.
    AiAssistant,
}

/// How Bold BI is asked for an embed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    /// By a signed query.
    Signed,
    /// By a JSON body.
    Json,
}

/// How Bold BI compares a filter with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Operator {
    /// It is the value.
    #[serde(rename = "=")]
    Equal,
    /// It is one of the values.
    #[serde(rename = "IN")]
    In,
    /// It is none of the values; with `via: json` only.
    #[serde(rename = "NOT IN")]
    NotIn,
}

fn default_modes() -> Field<Vec<Field<Mode>>> {
    Field::Given(vec![Field::Given(Mode::View)])
}

fn default_max_lifetime() -> Field<Period> {
    Field::Given(Period::seconds(86_400))
}

fn no_masked() -> Field<bool> {
    Field::Given(false)
}

fn default_via() -> Field<Via> {
    Field::Given(Via::Signed)
}
