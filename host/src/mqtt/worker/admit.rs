//! Where a worker's sockets come from, and how many it takes.

use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::Worker;
use crate::mqtt::connection::{Connection, ConnectionTask};

/// Milliseconds without new sockets after the system had none left.
const ACCEPT_PAUSE_MS: u64 = 50;

/// Where a worker's sockets come from.
pub(in crate::mqtt) enum Source {
    /// Accepted here, and handed round to the others.
    Listener(std::net::TcpListener, Vec<mpsc::Sender<std::net::TcpStream>>),
    /// Handed over by worker 0.
    Handover(mpsc::Receiver<std::net::TcpStream>),
}

impl Worker {
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener, others: Vec<mpsc::Sender<std::net::TcpStream>>) {
        let mut next = 0;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Either the peer is gone already, or there are no descriptors or no memory left.
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    continue;
                }
            };
            self.options.counters.accepted.add();
            let taken = match others.get(next) {
                None => self.admit(stream),
                Some(other) => stream.into_std().is_ok_and(|stream| other.try_send(stream).is_ok()),
            };
            if !taken {
                self.options.counters.turned_away.add();
            }
            next = (next + 1) % (others.len() + 1);
        }
    }

    pub(super) async fn take_over(self: Rc<Self>, mut sockets: mpsc::Receiver<std::net::TcpStream>) {
        while let Some(socket) = sockets.recv().await {
            if !TcpStream::from_std(socket).is_ok_and(|stream| self.admit(stream)) {
                self.options.counters.turned_away.add();
            }
        }
    }

    /// Makes a socket a connection with a task, unless there are too many.
    fn admit(self: &Rc<Self>, stream: TcpStream) -> bool {
        // A turn's output is one write already; waiting for more to send with it would only delay it. If the option
        // cannot be set, the socket works all the same.
        let _ = stream.set_nodelay(true);
        if self.fresh.get() >= self.options.connecting_sockets {
            return false;
        }
        let deadline = self.ticks_from_now(self.options.connect_timeout_ms);
        let slot = self.slots.borrow_mut().insert(deadline, |id| Connection::new(id, stream));
        let Some(connection) = slot else { return false };
        self.fresh.set(self.fresh.get() + 1);
        self.count_crowd();
        tokio::task::spawn_local(ConnectionTask::new(self.clone(), connection));
        true
    }
}
