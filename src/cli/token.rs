//! `boldgate token`.

use tokio::time::Instant;

use super::{ConfigFile, Failure, output, runtime, say};
use crate::boldbi::{BoldBi, hint, token_claims};
use crate::config::Settings;
use crate::tenant::Tenant;
use crate::token::{AccessToken, TokenExchange};

/// Obtain one token as `serve` would, and say what it is good for
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// The tenant, by its name in the configuration
    tenant: String,
    #[command(flatten)]
    config: ConfigFile,
    /// Print the token itself as well; whoever has it can act as its user
    #[arg(long)]
    show: bool,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.show {
            output::must_be_kept()?;
        }
        let settings = self.config.load()?;
        let tenant = self.find(&settings)?;
        let exchange = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
        let permit = settings.policy.operator_permit(tenant);
        introduce(tenant)?;
        let token = runtime()?.block_on(exchange.exchange(permit)).map_err(|error| {
            Failure::Other { what: error.to_string(), hint: Some(hint(&error).to_owned()) }
        })?;
        describe(&token)?;
        if self.show {
            say(&format!("authorization: {}", token.authorization().to_str().unwrap_or_default()))?;
        }
        Ok(())
    }

    fn find<'s>(&self, settings: &'s Settings) -> Result<&'s Tenant, Failure> {
        let mut tenants = settings.tenants.iter();
        tenants.find(|t| t.name.as_str() == self.tenant).map(|t| &**t).ok_or_else(|| {
            let mut names: Vec<&str> =
                settings.tenants.iter().map(|t| t.name.as_str()).take(MANY + 1).collect();
            if names.len() > MANY {
                names[MANY] = "…";
            }
            Failure::other(format!(
                "`{}` is no tenant of the configuration; there are: {}",
                self.tenant,
                names.join(", ")
            ))
        })
    }
}

/// What is asked for; said before the exchange, so that a failure is read beside it.
fn introduce(tenant: &Tenant) -> Result<(), Failure> {
    say(&format!("tenant:    {}", tenant.name))?;
    say(&format!("server:    {} ({})", tenant.server.name, tenant.server.origin()))?;
    say(&format!("site:      {}", tenant.site.as_deref().unwrap_or("-")))?;
    say(&format!("grant:     {}", tenant.credential.grant.as_str()))?;
    say(&format!("username:  {}", tenant.credential.username))
}

fn describe(token: &AccessToken) -> Result<(), Failure> {
    let left = token.expires_at().saturating_duration_since(Instant::now());
    say(&format!(
        "lifetime:  {} s, of which {} s are left",
        token.lifetime().as_secs(),
        left.as_secs()
    ))?;
    for (claim, value) in token_claims(token) {
        say(&format!("{:<11}{value}", format!("{claim}:")))?;
    }
    Ok(())
}

/// How many names are worth listing.
const MANY: usize = 20;
