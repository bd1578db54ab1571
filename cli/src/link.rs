//! A network link that can be cut: a TCP forwarder on loopback. Cut, it resets what goes through it and refuses what comes,
//! as a firewall does that rejects; healed, it listens on the same port again.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that may wait to be taken.
const BACKLOG: u32 = 128;

/// A link to one server. Dropping it cuts it for good.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    target: SocketAddr,
    tasks: TaskTracker,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Cancelling the token ends the listener and resets the connections.
    Whole(CancellationToken),
    /// Holds the port without listening, so that nobody else gets it.
    Cut(TcpSocket),
}

/// A socket on `address` that shares the port with its predecessor for the moment of the exchange.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Link {
    /// A whole link to `target`, on a free port of 127.0.0.1.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let socket = socket(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        let link = Self {
            address,
            target,
            tasks: TaskTracker::new(),
            state: Mutex::new(State::Cut(socket)),
        };
        link.heal()?;
        Ok(link)
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link: when this returns, every connection is reset and new ones are refused.
    pub async fn cut(&self) -> io::Result<()> {
        let parked = socket(self.address)?;
        let before = std::mem::replace(
            &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner),
            State::Cut(parked),
        );
        if let State::Whole(token) = before {
            token.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.tasks.reopen();
        }
        Ok(())
    }

    /// Heals the link: when this returns, connections go through.
    pub fn heal(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Whole(_)) {
            return Ok(());
        }
        let token = CancellationToken::new();
        if let State::Cut(socket) = std::mem::replace(&mut *state, State::Whole(token.clone())) {
            let listener = socket.listen(BACKLOG)?;
            self.tasks
                .spawn(accept(listener, self.target, token, self.tasks.clone()));
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let State::Whole(token) = self.state.get_mut().unwrap_or_else(PoisonError::into_inner) {
            token.cancel();
        }
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, cut: CancellationToken, tasks: TaskTracker) {
    while let Some(accepted) = cut.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((client, _)) => drop(tasks.spawn(forward(client, target, cut.clone()))),
            Err(error) => tracing::debug!(%error, "a connection could not be taken"),
        }
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr, cut: CancellationToken) {
    let server = cut.run_until_cancelled(TcpStream::connect(target)).await;
    let Some(Ok(mut server)) = server else {
        return reset(&client);
    };
    // Requests are small and their answers are waited for.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if cut
        .run_until_cancelled(tokio::io::copy_bidirectional(&mut client, &mut server))
        .await
        .is_none()
    {
        reset(&client);
        reset(&server);
    }
}

/// Makes closing a reset: what was not sent is dropped, and the other side gets an error instead of an end.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection ends in an orderly way instead of being reset");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn ping(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"ping");
        Ok(())
    }

    #[tokio::test]
    async fn cut_resets_and_refuses_and_healed_it_carries_on() {
        let link = Link::open(echo().await).unwrap();
        for _ in 0..5 {
            let mut open = TcpStream::connect(link.address()).await.unwrap();
            ping(&mut open).await.unwrap();
            link.cut().await.unwrap();
            let error = open.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            let error = TcpStream::connect(link.address()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            link.cut().await.unwrap();
            link.heal().unwrap();
            link.heal().unwrap();
            ping(&mut TcpStream::connect(link.address()).await.unwrap())
                .await
                .unwrap();
        }
    }
}
