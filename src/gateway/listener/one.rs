//! A connection that did not come over the network: for tests in memory.

use super::*;

impl Gateway {
    /// Serves a client at the other end of `stream`, as one of a plain listener, until it
    /// ends, or `ending` and `cut` say so.
    pub(crate) async fn serve_stream<S>(
        self: Arc<Self>,
        stream: S,
        address: IpAddr,
        (ending, cut): (CancellationToken, CancellationToken),
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = self.places.take(Some(address)) else {
            return;
        };
        let trusted = &self.settings.gateway.proxies.trusted;
        let mut peer = Peer::new(address, trusted, cut.clone());
        peer.activity = Arc::clone(&place.activity);
        let stream = Linger::new(stream, Arc::clone(&peer.unread));
        let stream = Stall::new(stream, self.settings.gateway.write_timeout);
        let connection = Connection {
            gateway: self,
            ending,
            cut,
            place,
            _counted: Counted::on(&connections()),
        };
        Box::pin(connection.plain(stream, peer)).await;
    }
}
