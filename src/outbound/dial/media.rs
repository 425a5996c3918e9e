//! Places from which a worker may fetch what a request names.

use super::public::Host;

/// Places from which media may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// From hosts of the public internet, and within the request.
    #[default]
    Public,
    /// From wherever the engine takes it.
    Any,
    /// Within the request only.
    Data,
    /// From nowhere.
    None,
    /// From these hosts, and within the request.
    Hosts(Vec<Host>),
}

impl Media {
    /// True if hosts may be among them that are not public.
    pub fn widens(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Hosts(hosts) => hosts.iter().any(|host| host.check().is_err()),
            Self::Public | Self::Data | Self::None => false,
        }
    }
}
