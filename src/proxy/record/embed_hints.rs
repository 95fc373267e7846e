//! The advice to operators about refused embed calls.

use crate::embed::{EmbedEndpoint, EmbedFault, Malformation};
use crate::refusal::RequestFacts;

/// The advice about a caller without the class `embed`.
pub(super) fn class_hint(facts: &RequestFacts) -> &'static str {
    if facts.caller.is_none() { ANONYMOUS_EMBEDS } else { CALLER_EMBEDS }
}

/// The advice about a call that asks for what the page may not have.
pub(super) fn embed_hint(why: &EmbedFault) -> &'static str {
    match why {
        EmbedFault::ContentType => {
            "the embed SDK sends this header; a page with `fetch` must set it"
        }
        EmbedFault::Malformed(Malformation::HeaderTwice(_)) => {
            "look for a proxy that adds this header beside the one of the page"
        }
        EmbedFault::Malformed(Malformation::DashboardId) => {
            "let the page send the dashboard's id as a text, or no `dashboardId`"
        }
        EmbedFault::Malformed(Malformation::Body | Malformation::NoQuery) => {
            "the page sends another body than the embed SDK does: docs/embedding.md has its form"
        }
        EmbedFault::Malformed(Malformation::UnknownKey(EmbedEndpoint::Authorize, _)) => {
            "let the page send what the embed SDK sends, `embedQuerString` and \
             `dashboardServerApiUrl`: users come from `subject` of the permission, filters from \
             `embed` of the tenant"
        }
        EmbedFault::Malformed(Malformation::UnknownKey(EmbedEndpoint::Token, _)) => {
            "let the page send `{}` or `{\"dashboardId\":\"…\"}`: users come from `subject` of the \
             permission, filters from `embed` of the tenant"
        }
        EmbedFault::Malformed(Malformation::UnknownName(_)) => {
            "the page, or a version of the SDK that the gateway does not know yet, adds a name: take \
             one option after another out of the page"
        }
        EmbedFault::Malformed(Malformation::DotSegment(_)) => {
            "let the page name the dashboard by its whole path, or by its id"
        }
        EmbedFault::Malformed(_) => {
            "names with `&`, `=`, `+`, `#`, `;`, `%` or quotes cannot be embedded: the SDK does not \
             encode them"
        }
        EmbedFault::Identity(_) => {
            "remove this option from the page: users come from `subject` of the permission, filters \
             from `embed` of the tenant"
        }
        EmbedFault::Mode => "list the mode in `embed.modes` of the tenant, if pages may use it",
        EmbedFault::Dashboard(_) => {
            "list the dashboard's id in `embed.dashboards` of the tenant, if pages may embed it"
        }
        EmbedFault::NotById => {
            "let the page name a dashboard of `embed.dashboards` by its id: neither its path nor a \
             pinboard is known to be that dashboard"
        }
        EmbedFault::PageTooLong(..) => {
            "let the page name the dashboard by its id, or show fewer dashboards at once"
        }
        EmbedFault::NotInJson => {
            "let the page name one dashboard by its id, or set `embed.via: signed`"
        }
        EmbedFault::Claim { .. } => {
            "let the issuer put the claim into its tokens, as a text or a list of texts"
        }
        EmbedFault::Subject | EmbedFault::TooLong(_) => {
            "set `embed.via: json` if Bold BI is of version 14.1 or later"
        }
    }
}

const ANONYMOUS_EMBEDS: &str = "the caller is anonymous, and a page acts as the user of an admitted caller: let the \
     page send its user's JWT to a listener with `callers: required`, and give the caller of that \
     issuer a permission with `routes: [embed]` and `subject` (docs/embedding.md)";
const CALLER_EMBEDS: &str = "if pages may embed as this caller, list the class `embed` in `routes` of a permission of the \
     caller, with `subject` (docs/embedding.md)";
