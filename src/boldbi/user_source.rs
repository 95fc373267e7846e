//! The user sources of Bold BI, which decide the grants that work for a user.

use strum::{IntoStaticStr, VariantArray};

use crate::tenant::Grant;

/// Where Bold BI keeps a user. (Bold BI: "Generate access token based on user type"; LinkedIn and
/// Syncfusion on Cloud only.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum UserSource {
    /// Bold BI itself, with a password.
    Local,
    /// Imported from a CSV file, with a password.
    Csv,
    /// Imported from a database, with a password.
    Database,
    /// Microsoft Entra ID.
    AzureAd,
    /// Windows Active Directory.
    WindowsAd,
    /// An OAuth 2.0 provider.
    Oauth2,
    /// An OpenID Connect provider.
    OpenidConnect,
    /// Single sign-on by JWT.
    Jwt,
    /// LinkedIn.
    Linkedin,
    /// Syncfusion.
    Syncfusion,
}

impl UserSource {
    /// Its name in configuration and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether `grant` works for such a user: the embed secret works for all, a password only if
    /// Bold BI itself stores it.
    pub fn allows(self, grant: Grant) -> bool {
        match grant {
            Grant::EmbedSecret | Grant::Token => true,
            // It is nobody's.
            Grant::ClientCredentials => false,
            Grant::Password => matches!(self, Self::Local | Self::Csv | Self::Database),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_sources_keep_passwords() {
        let with_password: Vec<_> =
            UserSource::VARIANTS.iter().filter(|s| s.allows(Grant::Password)).collect();
        assert_eq!(with_password, [&UserSource::Local, &UserSource::Csv, &UserSource::Database]);
        assert!(UserSource::VARIANTS.iter().all(|s| s.allows(Grant::EmbedSecret)));
    }
}
