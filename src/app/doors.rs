//! Everything that is listened on over TCP.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::failure::Failure;
use super::sockets::Sockets;
use crate::admin::Front;
use crate::admin::listener::AdminListener;
use crate::config::Settings;
use crate::gateway::client::tls::Certificates;
use crate::gateway::listener::Listener;

/// Bound sockets, none accepting yet.
#[derive(Debug)]
pub(super) struct Doors {
    /// Listeners of clients: first those of HTTPS.
    pub(super) listeners: Vec<Listener>,
    /// Listener of the dashboard.
    pub(super) admin: Option<AdminListener>,
    /// Listener of Prometheus.
    pub(super) metrics: Option<TcpListener>,
}

impl Doors {
    /// Takes a socket for every address of the settings.
    pub(super) fn open(
        settings: &Settings,
        certificates: &Arc<Certificates>,
        sockets: &mut Sockets,
    ) -> Result<Self, Failure> {
        let gateway = &settings.gateway;
        let clients = gateway.listen.iter().chain(&gateway.plain_listen);
        let ours = settings.metrics.listen.iter().chain(&settings.admin.listen);
        sockets.expect(clients.chain(ours).copied());
        let tls = certificates.server_config()?;
        let mut listeners = Vec::new();
        let protocol = &settings.gateway.proxies.protocol;
        for address in &settings.gateway.listen {
            let socket = sockets.listen(*address, "gateway.listen")?;
            let listener = Listener::new(socket, Some(Arc::clone(&tls)));
            listeners.push(listener.proxied(protocol.contains(address)));
        }
        for address in &settings.gateway.plain_listen {
            let socket = sockets.listen(*address, "gateway.plain_listen")?;
            let listener = Listener::new(socket, None);
            listeners.push(listener.proxied(protocol.contains(address)));
        }
        let metrics = match settings.metrics.listen {
            Some(address) => Some(sockets.listen(address, "metrics.listen")?),
            None => None,
        };
        let admin = match settings.admin.listen {
            Some(address) => {
                let socket = sockets.listen(address, "admin.listen")?;
                Some(AdminListener::new(socket, certificates.admin_config()?))
            }
            None => None,
        };
        Ok(Self {
            listeners,
            admin,
            metrics,
        })
    }

    /// Listeners for clients, the HTTPS ones first.
    pub(super) fn fronts(&self, settings: &Settings) -> Vec<Front> {
        let secure = settings.gateway.listen.len();
        let all = self.listeners.iter().enumerate();
        all.filter_map(|(place, listener)| {
            Some(Front {
                address: listener.address().ok()?,
                secure: place < secure,
            })
        })
        .collect()
    }

    /// URL of the dashboard, for people.
    pub(super) fn admin_url(&self) -> Option<String> {
        let front = Front {
            address: self.admin.as_ref()?.address().ok()?,
            secure: true,
        };
        Some(front.url())
    }
}
