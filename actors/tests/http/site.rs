//! An executor, a harness at it, and a web server beside it.

use dwell_actors::harness::{Harness, HarnessBuilder};
use dwell_actors::http_client::{HttpAsk, RemoteExchange, RemoteHttp};
use dwell_messages::http::SentHeader;
use dwell_testkit::Origin;
use serde_bytes::ByteBuf;

use crate::support::bounded;
use crate::world::World;

pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) harness: Harness,
    pub(crate) origin: Origin,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(set: impl FnOnce(HarnessBuilder) -> HarnessBuilder) -> Self {
        let world = World::start().await;
        let harness = world.harness_with(set).await;
        let origin = Origin::start().unwrap();
        Self {
            world,
            harness,
            origin,
        }
    }

    pub(crate) fn http(&self) -> RemoteHttp {
        self.harness.http()
    }

    pub(crate) fn get(&self, path: &str) -> HttpAsk {
        HttpAsk::get(self.origin.url(path))
    }

    pub(crate) async fn end(self) {
        bounded("the harness's end", self.harness.shutdown()).await;
        bounded("the executor's end", self.world.executor.shutdown()).await;
    }
}

pub(crate) fn header(name: &str, value: &str, variable: Option<&str>) -> SentHeader {
    SentHeader {
        name: name.into(),
        value: ByteBuf::from(value.as_bytes()),
        variable: variable.map(str::to_owned),
    }
}

/// The whole body.
pub(crate) async fn whole(mut exchange: RemoteExchange) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(part) = bounded("a part of a body", exchange.next()).await.unwrap() {
        assert!(!part.is_empty());
        body.extend_from_slice(&part);
    }
    body
}
