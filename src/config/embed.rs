//! The key `embed` of a tenant: what web pages may embed of it.

use std::collections::HashSet;

use crate::boldbi::embed::{is_guid, is_id};
use crate::embed::can_be_sent;
use crate::tenant::{EmbedMode, EmbedSettings, EmbedValue, EmbedVia, FilterOperator, ValueSource};

use super::Check;
use super::field::{Field, some};
use super::file;
use super::finding::Noted;
use super::place::{Place, words};
use super::quantity::Period;

impl Check<'_> {
    /// The settings of a tenant's embed endpoints; `None` if not given.
    pub(super) fn embed(
        self,
        at: &Place<'_>,
        embed: Field<file::Embed>,
        no_embed_secret: bool,
    ) -> Result<Option<EmbedSettings>, Noted> {
        let Some(embed) = embed.optional()? else { return Ok(None) };
        if no_embed_secret {
            let problem = "found it for a tenant without the grant `embed_secret`";
            let finding = at.key_finding(problem, "a tenant with the grant `embed_secret`");
            self.notes.add(finding.hint("Bold BI takes embed calls by the embed secret only"));
        }
        let narrowed = [
            ("dashboards", !embed.dashboards.is_missing()),
            ("datasource_filters", !embed.datasource_filters.is_missing()),
            ("dashboard_parameters", !embed.dashboard_parameters.is_missing()),
            ("custom_attributes", !embed.custom_attributes.is_missing()),
        ];
        let masked = self.masked(&at.key("masked"), embed.masked, narrowed);
        let via_at = at.key("via");
        let via = embed.via.required(&via_at, VIA, self.notes).map(|via| match via {
            file::Via::Signed => EmbedVia::Signed,
            file::Via::Json => EmbedVia::Json,
        });
        let modes_at = at.key("modes");
        let modes = embed.modes.required(&modes_at, MODES, self.notes).and_then(|modes| {
            let read = |at: &Place<'_>, one| {
                let one = mode(one);
                if via == Ok(EmbedVia::Json) && one != EmbedMode::View {
                    let problem = "found another mode than `view` with `via: json`";
                    let finding = at.finding(problem, "`view`, or `via: signed`");
                    return Err(self.notes.add(finding));
                }
                Ok(one)
            };
            some(modes, &modes_at, MODES, self.notes, read)
        });
        let dashboards = self.dashboards(&at.key("dashboards"), embed.dashboards);
        let lifetime_at = at.key("max_lifetime");
        let max_lifetime =
            self.within(&lifetime_at, embed.max_lifetime, MIN_LIFETIME, MAX_LIFETIME);
        if via == Ok(EmbedVia::Json) && max_lifetime.is_ok_and(|max| max < JSON_LIFETIME) {
            let problem = "found less than 24 hours with `via: json`, whose tokens live that long";
            let finding = lifetime_at.finding(problem, "24h or more, or `via: signed`");
            self.notes.add(finding.hint("Bold BI's JSON body has no field for the lifetime"));
        }
        let values = |key, values| self.embed_values(&at.key(key), values, via);
        let filters = values("datasource_filters", embed.datasource_filters);
        let parameters = values("dashboard_parameters", embed.dashboard_parameters);
        if !embed.custom_attributes.is_missing() && via == Ok(EmbedVia::Signed) {
            let problem = "found custom attributes with `via: signed`";
            let finding = at.key("custom_attributes").key_finding(problem, "`via: json`");
            self.notes.add(finding.hint(JSON_NEEDED));
        }
        let attributes = values("custom_attributes", embed.custom_attributes);
        Ok(Some(EmbedSettings {
            modes: modes?,
            dashboards: dashboards?,
            max_lifetime: max_lifetime?.0,
            via: via?,
            filters: filters?,
            parameters: parameters?,
            attributes: attributes?,
            masked: masked?,
        }))
    }

    /// Whether masked mode is on. Its token is the user's own, which no filter narrows.
    fn masked(
        self,
        at: &Place<'_>,
        masked: Field<bool>,
        narrowed: [(&str, bool); 4],
    ) -> Result<bool, Noted> {
        let masked = masked.required(at, "`true`, `false`", self.notes)?;
        let given: Vec<_> =
            narrowed.into_iter().filter_map(|(key, given)| given.then_some(key)).collect();
        if masked && !given.is_empty() {
            let problem = format!("found masked mode beside {}", words(&given));
            let finding = at.finding(problem, "`true` without a list or a filter beside it");
            self.notes.add(finding.hint(NOT_NARROWED));
        }
        Ok(masked)
    }

    fn dashboards(
        self,
        at: &Place<'_>,
        dashboards: Field<Vec<Field<String>>>,
    ) -> Result<Option<Vec<String>>, Noted> {
        let Some(dashboards) = dashboards.optional()? else { return Ok(None) };
        let mut known = HashSet::new();
        let listed = some(dashboards, at, DASHBOARD, self.notes, |at, id| {
            if !is_id(&id) {
                return Err(self.notes.add(at.wrong(DASHBOARD)));
            }
            if !known.insert(id.clone()) {
                let problem = "found the same dashboard again";
                return Err(self.notes.add(at.finding(problem, "each dashboard once")));
            }
            if !is_guid(&id) {
                let problem = "found what is no GUID, as Bold BI's ids are: names and paths of \
                               dashboards never match";
                self.notes.warn(at.finding(problem, DASHBOARD).hint(OF_ADDRESS));
            }
            Ok(id)
        });
        listed.map(Some)
    }

    fn embed_values(
        self,
        at: &Place<'_>,
        values: Field<Vec<Field<file::FilterValue>>>,
        via: Result<EmbedVia, Noted>,
    ) -> Result<Vec<EmbedValue>, Noted> {
        let Some(values) = values.optional()? else { return Ok(Vec::new()) };
        let mut known = HashSet::new();
        some(values, at, VALUE, self.notes, |at, value| {
            let value = self.embed_value(at, value, via?)?;
            if !known.insert(value.name.clone()) {
                let problem = "found the same name again";
                return Err(self.notes.add(at.key("name").finding(problem, "each name once")));
            }
            Ok(value)
        })
    }

    fn embed_value(
        self,
        at: &Place<'_>,
        given: file::FilterValue,
        via: EmbedVia,
    ) -> Result<EmbedValue, Noted> {
        let sendable = |at: &Place<'_>, text: String| {
            if can_be_sent(&text, via) {
                return Ok(text);
            }
            let accepted = match via {
                EmbedVia::Signed => "letters, digits, `_`, `.` and `-` with `via: signed`",
                EmbedVia::Json => "a text without control characters",
            };
            let finding = at.wrong(accepted);
            let hint = (via == EmbedVia::Signed && !text.is_empty()).then_some(JSON_NEEDED);
            Err(self.notes.add(finding.hint_if(hint)))
        };
        let name_at = at.key("name");
        let name = given.name.required(&name_at, "a name", self.notes);
        let name = name.and_then(|name| sendable(&name_at, name));
        let (claim_at, value_at) = (at.key("claim"), at.key("value"));
        let source = match (given.claim.optional(), given.value.optional()) {
            (Ok(Some(claim)), Ok(None)) => self.claim(&claim_at, claim).map(ValueSource::Claim),
            (Ok(None), Ok(Some(value))) => sendable(&value_at, value).map(ValueSource::Fixed),
            (Ok(None), Ok(None)) => Err(self.notes.add(claim_at.missing("`claim` or `value`"))),
            (Ok(Some(_)), Ok(Some(_))) => {
                let problem = "found a value beside `claim`";
                Err(self.notes.add(value_at.key_finding(problem, "one of `claim` and `value`")))
            }
            (Err(noted), _) | (_, Err(noted)) => Err(noted),
        };
        let operator_at = at.key("operator");
        let operator = given.operator.optional().map(|operator| operator.map(operator_of));
        if operator == Ok(Some(FilterOperator::NotIn)) && via == EmbedVia::Signed {
            let finding = operator_at.finding("found `NOT IN` with `via: signed`", "`=`, `IN`");
            self.notes.add(finding.hint(JSON_NEEDED));
        }
        Ok(EmbedValue { name: name?, source: source?, operator: operator? })
    }
}

fn mode(mode: file::Mode) -> EmbedMode {
    match mode {
        file::Mode::View => EmbedMode::View,
        file::Mode::Design => EmbedMode::Design,
        file::Mode::Connection => EmbedMode::Connection,
        file::Mode::Datasource => EmbedMode::Datasource,
        file::Mode::AiAssistant => EmbedMode::AiAssistant,
    }
}

fn operator_of(operator: file::Operator) -> FilterOperator {
    match operator {
        file::Operator::Equal => FilterOperator::Equal,
        file::Operator::In => FilterOperator::In,
        file::Operator::NotIn => FilterOperator::NotIn,
    }
}

const NOT_NARROWED: &str = "in masked mode the rights of the user in Bold BI decide alone: its token is narrowed by no \
                           list and no filter; set filters of rows for the user in Bold BI";
const VIA: &str = "`signed`, `json`";
const MODES: &str = "some of `view`, `design`, `connection`, `datasource`, `aiassistant`";
const DASHBOARD: &str = "ids of dashboards, such as `c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff`";
const OF_ADDRESS: &str = "the id of a dashboard is in its address in Bold BI: `…/dashboards/ID/…`";
const VALUE: &str = "a list of `{ name: …, claim: … }` or `{ name: …, value: … }`";
const JSON_NEEDED: &str = "`via: json` carries it, with Bold BI 14.1 and later";
/// A page gets no token with less time left.
const MIN_LIFETIME: Period = Period::seconds(600);
/// The longest that Bold BI gives to embed tokens.
const MAX_LIFETIME: Period = Period::seconds(7 * 86_400);
/// The lifetime of tokens by JSON.
const JSON_LIFETIME: Period = Period::seconds(86_400);
