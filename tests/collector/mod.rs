//! A collector of traces that a test holds in its hand.
#![allow(dead_code)] // each test binary uses its part

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

/// A collector that can be held and told to refuse.
#[derive(Clone)]
pub struct Collector {
    pub got: Arc<Mutex<Got>>,
    pub held: Arc<watch::Sender<bool>>,
    /// Exports that are refused before one is taken.
    pub refusals: Arc<Mutex<usize>>,
    pub address: SocketAddr,
}

/// What came.
#[derive(Default)]
pub struct Got {
    pub spans: Vec<Span>,
    pub resources: Vec<Resource>,
    /// `x-tenant` of the exports.
    pub tenants: Vec<String>,
    /// Exports that came, refused ones too.
    pub exports: usize,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.got.lock().unwrap().exports += 1;
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        {
            let mut refusals = self.refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                return Err(Status::unavailable("later"));
            }
        }
        let mut got = self.got.lock().unwrap();
        if let Some(tenant) = request.metadata().get("x-tenant") {
            got.tenants.push(tenant.to_str().unwrap().to_owned());
        }
        for resource in request.into_inner().resource_spans {
            got.resources.extend(resource.resource);
            for scope in resource.scope_spans {
                assert_eq!(scope.scope.unwrap().name, "headhunt");
                got.spans.extend(scope.spans);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub async fn start() -> Collector {
        Collector::serve(Server::builder()).await
    }

    /// Behind TLS with this certificate and key, PEM.
    pub async fn start_with_tls(certificate: &str, key: &str) -> Collector {
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        Collector::serve(Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(mut server: Server) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Collector {
            got: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
            refusals: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(
            server
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        collector
    }

    /// Settings of a server that sends here.
    pub fn toml(&self) -> String {
        format!("traces.endpoint = 'http://{}'\n", self.address)
    }

    pub fn spans(&self) -> Vec<Span> {
        self.got.lock().unwrap().spans.clone()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute as text.
pub fn said(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match attribute.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    })
}

pub fn of(span: &Span, key: &str) -> Option<String> {
    said(&span.attributes, key)
}

pub fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}
