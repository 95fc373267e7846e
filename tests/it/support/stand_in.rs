//! The stand-in for Bold BI, with the sites and users of a test.

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions, StandInSite, StandInUser};

/// A site of a stand-in, all of whose users have `password`.
pub fn site(id: Option<&str>, users: &[(&str, UserSource)]) -> StandInSite {
    let user = |(email, source): &(&str, UserSource)| StandInUser {
        email: (*email).into(),
        password: Some(PASSWORD.into()),
        source: *source,
    };
    StandInSite {
        id: id.map(Into::into),
        embed_secret: EMBED_SECRET.into(),
        users: users.iter().map(user).collect(),
    }
}

/// A stand-in with these sites.
pub async fn stand_in(sites: Vec<StandInSite>) -> StandIn {
    StandIn::start(StandInOptions { sites, ..StandInOptions::default() }).await.unwrap()
}

/// The secret that every site takes. It must show nowhere, nor must [`PASSWORD`].
pub const EMBED_SECRET: &str = "canary-embed-secret";
pub const PASSWORD: &str = "canary-p&ss=w%rd+1 é";
