//! `boldgate token`.

use tokio::time::Instant;

use super::named_tenant::{DISABLED, disabled_to_do, no_such_tenant};
use super::{ConfigFile, Failure, output, print, runtime};
use crate::boldbi::{BoldBi, InTurn, hint_in_rotation, token_claims};
use crate::config::Settings;
use crate::run::named_unfinished_rotation;
use crate::tenant::Tenant;
use crate::token::AccessToken;

/// Obtain one token as `serve` would, and describe it
#[derive(Debug, clap::Args)]
pub(super) struct TokenCommand {
    /// The tenant, by its name in the configuration
    tenant: String,
    #[command(flatten)]
    config: ConfigFile,
    /// Also print the token itself; anyone who has it can act as its user
    #[arg(long)]
    show: bool,
}

impl TokenCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.show {
            output::require_kept_stdout()?;
        }
        let settings = self.config.load_for(&self.tenant)?;
        let tenant = self.find(&settings)?;
        if tenant.disabled {
            let what = format!("tenant `{}`: {DISABLED}", tenant.name);
            return Err(Failure::Other { what, hint: Some(disabled_to_do(tenant)) });
        }
        let exchange = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
        let permit = settings.policy.operator_permit(tenant);
        print_tenant(tenant)?;
        let InTurn { position, refused, result } =
            runtime()?.block_on(exchange.exchange_in_turn(permit));
        if let Some((position, error)) = refused {
            print(&format!("position {}:    {}", position.number(), error.kind))?;
        }
        let token = result.map_err(|error| {
            let command = named_unfinished_rotation(tenant, &settings.resume);
            let hint = hint_in_rotation(&error, command.as_deref()).into_owned();
            Failure::Other { what: error.to_string(), hint: Some(hint) }
        })?;
        if tenant.credential.has_two_secrets() {
            print(&format!("position:      {}", position.number()))?;
        }
        let token = token.token;
        print_token(&token)?;
        if self.show {
            print(&format!(
                "authorization: {}",
                token.authorization().to_str().unwrap_or_default()
            ))?;
        }
        Ok(())
    }

    fn find<'s>(&self, settings: &'s Settings) -> Result<&'s Tenant, Failure> {
        let mut tenants = settings.tenants.iter();
        tenants
            .find(|t| t.name.as_str() == self.tenant)
            .map(|t| &**t)
            .ok_or_else(|| Failure::other(no_such_tenant(&self.tenant, settings)))
    }
}

/// Printed before the exchange, so that a failure is read beside it.
fn print_tenant(tenant: &Tenant) -> Result<(), Failure> {
    print(&format!("tenant:    {}", tenant.name))?;
    print(&format!("server:    {} ({})", tenant.server.name, tenant.server.origin()))?;
    print(&format!("site:      {}", tenant.site().unwrap_or("-")))?;
    print(&format!("grant:     {}", tenant.credential.grant.as_str()))?;
    print(&format!("username:  {}", tenant.credential.username))
}

fn print_token(token: &AccessToken) -> Result<(), Failure> {
    let left = token.expires_at().saturating_duration_since(Instant::now());
    print(&format!("lifetime:  {} s, {} s left", token.lifetime().as_secs(), left.as_secs()))?;
    for (claim, value) in token_claims(token) {
        print(&format!("{:<11}{value}", format!("{claim}:")))?;
    }
    Ok(())
}
