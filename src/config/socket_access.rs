//! The keys `mode` and `group` of a listener: the processes that may connect to its Unix socket.

use nix::unistd::Group;

use super::field::Field;
use super::file;
use super::finding::Noted;
use super::listeners::{ListenAddress, SocketAccess};
use super::place::{Place, quoted};
use super::{Check, References};

impl Check<'_> {
    /// The access to the socket of `listener`, whose `address` may be unknown.
    pub(super) fn socket_access(
        self,
        at: &Place<'_>,
        mode: Field<String>,
        group: Field<String>,
        address: Option<&ListenAddress>,
    ) -> Result<SocketAccess, Noted> {
        let is_tcp = matches!(address, Some(ListenAddress::Tcp(_)));
        for (key, is_missing) in [("mode", mode.is_missing()), ("group", group.is_missing())] {
            if is_tcp && !is_missing {
                let problem = format!("found `{key}`, but the listener is no Unix socket");
                let accepted = format!("`{key}` with an `address` that begins with `unix:`");
                return Err(self.notes.add(at.key(key).key_finding(problem, accepted)));
            }
        }
        let mode = self.mode(&at.key("mode"), mode);
        let group = self.group(&at.key("group"), group)?;
        Ok(SocketAccess { mode: mode?, group })
    }

    fn mode(self, at: &Place<'_>, mode: Field<String>) -> Result<u32, Noted> {
        let Some(text) = mode.optional()? else { return Ok(SocketAccess::default().mode) };
        let digits = text.strip_prefix('0').unwrap_or(&text);
        let means_something = |digit| matches!(digit, '0' | '6' | '7');
        let is_mode =
            digits.len() == 3 && digits.chars().all(means_something) && !digits.starts_with('0');
        let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_mode);
        mode.ok_or_else(|| self.notes.add(at.wrong(MODES).hint(WRITE_TO_CONNECT)))
    }

    /// The number of a group that is given by name or by number.
    fn group(self, at: &Place<'_>, group: Field<String>) -> Result<Option<u32>, Noted> {
        let Some(text) = group.optional()? else { return Ok(None) };
        if let Ok(number) = text.parse::<u32>()
            && number != u32::MAX
        {
            return Ok(Some(number));
        }
        if self.references == References::Ignore {
            return Ok(None);
        }
        let name = quoted(&text);
        let finding = match Group::from_name(&text) {
            Ok(Some(group)) => return Ok(Some(group.gid.as_raw())),
            Ok(None) => at
                .finding(format!("found {name}, and this machine has no such group"), GROUPS)
                .hint("`groupadd --system NAME` makes a group"),
            Err(error) => {
                let error = std::io::Error::from(error);
                let problem = format!("found {name}, which cannot be looked up: {error}");
                at.finding(problem, GROUPS).hint("the number of the group needs no look-up")
            }
        };
        Err(self.notes.add(finding))
    }

    /// A warning about a socket to which everybody on this machine may connect without a proof.
    pub(super) fn warn_of_socket(
        self,
        at: &Place<'_>,
        access: SocketAccess,
        callers: Option<file::Callers>,
    ) {
        if access.mode & 0o002 != 0 && callers == Some(file::Callers::Anonymous) {
            let problem = "found a mode with which every user of this machine may connect, and \
                           `callers: anonymous`";
            let accepted = "`0660` with a `group`, or `callers: required`";
            self.notes.warn(at.finding(problem, accepted));
        }
    }
}

const MODES: &str = "`0660` (owner and group may connect), `0600` (the owner alone), `0666` (every user \
                     of this machine)";
const WRITE_TO_CONNECT: &str = "it takes the right to write to connect, so that a digit other than 0 and 6 (or 7) \
                                means nothing";
const GROUPS: &str = "the name or the number of a group";
