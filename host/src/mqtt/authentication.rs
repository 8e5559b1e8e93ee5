//! Enhanced authentication (section 4.12): what a method has to do, and what it is told.
//!
//! A [`Method`] is offered under the name that clients give in CONNECT as Authentication Method. The connection keeps
//! to the protocol: who may speak when, the method's name in each packet, deadlines and sizes. The method judges.
//! Its answers are futures, so it may ask somebody else; the worker goes on with its other connections meanwhile. A
//! connection that ends drops the answer it waits for. Plugins with hooks offer further methods, which come and go with
//! their deploys; see [`mod@offered`].

mod offered;

pub(super) use self::offered::offered;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use vespiary_core::event::ReasonCode;

/// A way for clients to prove who they are.
pub trait Method: fmt::Debug + Send + Sync {
    /// A client that named this method connects, or authenticates again on a running connection.
    fn begin(&self, claim: Claim) -> Answer;
}

/// An exchange in which it is the client's turn to speak.
pub trait Exchange: fmt::Debug {
    /// The client has answered with this Authentication Data.
    fn proceed(self: Box<Self>, data: Option<Box<[u8]>>) -> Answer;
}

/// A method's answer, perhaps later. It is polled on the worker's thread and must not block.
pub type Answer = Pin<Box<dyn Future<Output = Outcome>>>;

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Client identifier.
    pub client_id: Arc<str>,
    /// User name from CONNECT, or the one that a method has given it since.
    pub user_name: Option<Arc<str>>,
    /// Address of its socket.
    pub address: Arc<str>,
    /// Authentication Data from CONNECT, or from the AUTH that begins again.
    pub data: Option<Box<[u8]>>,
}

/// What a method has come to.
#[derive(Debug)]
pub enum Outcome {
    /// The client has to answer: it gets AUTH with Continue authentication (0x18).
    Continue {
        /// Authentication Data for the client, of 65,535 bytes at most.
        data: Option<Box<[u8]>>,
        /// Takes its answer.
        exchange: Box<dyn Exchange>,
    },
    /// The client is who it claims to be: it gets CONNACK, or AUTH with Success when it authenticated again.
    Success {
        /// Authentication Data for the client, of 65,535 bytes at most.
        data: Option<Box<[u8]>>,
        /// The user name to know it by, if that is another than the one it gave.
        user_name: Option<Arc<str>>,
    },
    /// It is not: it is told this reason, an error, and the connection closes.
    Refuse(ReasonCode),
}

/// The methods on offer, by name.
#[derive(Debug, Clone, Default)]
pub struct Methods(Vec<(Arc<str>, Arc<dyn Method>)>);

impl Methods {
    /// Offers a method; it takes the place of one of the same name.
    pub fn offer(&mut self, name: &str, method: Arc<dyn Method>) {
        self.0.retain(|(offered, _)| **offered != *name);
        self.0.push((name.into(), method));
    }

    /// The method of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<dyn Method>> {
        self.0.iter().find(|(offered, _)| **offered == *name).map(|(_, method)| method)
    }
}
