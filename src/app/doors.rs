//! Everything that is listened on over TCP.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::Failure;
use crate::admin::listener::AdminListener;
use crate::config::Settings;
use crate::gateway::listener::{BindError, Listener};
use crate::gateway::tls::Certificates;

/// Bound sockets, none accepting yet.
#[derive(Debug)]
pub(super) struct Doors {
    /// Of clients: first those of HTTPS.
    pub(super) listeners: Vec<Listener>,
    /// Of the dashboard.
    pub(super) admin: Option<AdminListener>,
    /// Of Prometheus.
    pub(super) metrics: Option<TcpListener>,
}

impl Doors {
    /// Binds every address of the settings.
    pub(super) async fn open(
        settings: &Settings,
        certificates: &Arc<Certificates>,
    ) -> Result<Self, Failure> {
        let tls = certificates.server_config()?;
        let mut listeners = Vec::new();
        let protocol = &settings.gateway.proxies.protocol;
        for address in &settings.gateway.listen {
            let tls = Some(Arc::clone(&tls));
            let listener = Listener::bind(*address, tls, "gateway.listen").await?;
            listeners.push(listener.proxied(protocol.contains(address)));
        }
        for address in &settings.gateway.plain_listen {
            let listener = Listener::bind(*address, None, "gateway.plain_listen").await?;
            listeners.push(listener.proxied(protocol.contains(address)));
        }
        let metrics = match settings.metrics.listen {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| BindError::new(address, "metrics.listen", source))?,
            ),
            None => None,
        };
        let admin = match settings.admin.listen {
            Some(address) => {
                let tls = certificates.admin_config()?;
                Some(AdminListener::bind(address, tls).await?)
            }
            None => None,
        };
        Ok(Self {
            listeners,
            admin,
            metrics,
        })
    }
}
