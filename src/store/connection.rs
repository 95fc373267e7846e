//! Connections to the store: to one server, to the master that sentinels name, or to a Cluster.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, ClientTlsConfig, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, TlsCertificates, Value,
};
use rustls::ClientConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::condition::StoreEngine;
use super::settings::{StoreLogin, StoreNode, StoreSettings, StoreTarget, StoreTls};

/// A connection that many requests use at the same time.
#[derive(Clone)]
pub(super) enum StoreConnection {
    /// To one server.
    Single { connection: MultiplexedConnection, _driver: Arc<Driver> },
    /// To all nodes of a Cluster.
    Cluster(ClusterConnection),
}

/// The task that reads and writes for a connection. It ends with the last handle.
pub(super) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no connection.
pub(super) type ConnectFault = Box<dyn Error + Send + Sync>;

impl StoreConnection {
    /// A new connection, to `master` if the store has sentinels. The caller bounds the time.
    pub(super) async fn open(
        settings: &StoreSettings,
        master: Option<&StoreNode>,
    ) -> Result<Self, ConnectFault> {
        match &settings.target {
            StoreTarget::Single(node) => Self::to(node, settings, &settings.login).await,
            StoreTarget::Sentinel { .. } => {
                let master = master.ok_or("no sentinel has named a master")?;
                Self::to(master, settings, &settings.login).await
            }
            StoreTarget::Cluster(nodes) => cluster(nodes, settings).await.map(Self::Cluster),
        }
    }

    /// Sends all commands of `pipeline` together.
    pub(super) async fn send<T: FromRedisValue>(
        &mut self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisError> {
        match self {
            Self::Single { connection, .. } => pipeline.query_async(connection).await,
            Self::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }

    /// The program at the other end.
    pub(super) async fn engine(&mut self) -> Result<Option<StoreEngine>, RedisError> {
        let mut question = redis::pipe();
        question.cmd("HELLO");
        let (reply,) = self.send::<(HashMap<String, Value>,)>(&question).await?;
        Ok(StoreEngine::read(&reply))
    }

    async fn to(
        node: &StoreNode,
        settings: &StoreSettings,
        login: &StoreLogin,
    ) -> Result<Self, ConnectFault> {
        let tcp = TcpStream::connect((node.host.as_str(), node.port)).await?;
        tcp.set_nodelay(true)?;
        let info = with_login(RedisConnectionInfo::default().set_skip_set_lib_name(), login);
        // The deadline of a request is ours.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) = match &settings.tls {
            None => {
                let made = MultiplexedConnection::new_with_config(&info, tcp, config).await?;
                (made.0, tokio::spawn(made.1))
            }
            Some(tls) => {
                let name = ServerName::try_from(node.host.clone())?;
                let stream = TlsConnector::from(client_config(tls)?).connect(name, tcp).await?;
                let made = MultiplexedConnection::new_with_config(&info, stream, config).await?;
                (made.0, tokio::spawn(made.1))
            }
        };
        Ok(Self::Single { connection, _driver: Arc::new(Driver(driver.abort_handle())) })
    }
}

/// The master that a sentinel names.
pub(super) async fn master(settings: &StoreSettings) -> Result<StoreNode, ConnectFault> {
    let StoreTarget::Sentinel { master, nodes, login } = &settings.target else {
        return Err("the store has no sentinels".into());
    };
    let ask = |node: StoreNode| {
        Box::pin(async move {
            let mut connection = StoreConnection::to(&node, settings, login).await?;
            let mut question = redis::pipe();
            question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
            let (found,): (Option<(String, u16)>,) = connection.send(&question).await?;
            let (host, port) = found.ok_or("the sentinel knows no master of this name")?;
            Ok::<_, ConnectFault>(StoreNode { host, port })
        })
    };
    let (found, _) = select_ok(nodes.iter().cloned().map(ask)).await?;
    Ok(found)
}

async fn cluster(
    nodes: &[StoreNode],
    settings: &StoreSettings,
) -> Result<ClusterConnection, ConnectFault> {
    let info = |node: &StoreNode| -> Result<ConnectionInfo, RedisError> {
        let (host, port) = (node.host.clone(), node.port);
        let address = match settings.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        Ok(address.into_connection_info()?.set_redis_settings(with_login(info, &settings.login)))
    };
    let nodes = nodes.iter().map(info).collect::<Result<Vec<_>, _>>()?;
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(settings.timeout)
        .response_timeout(settings.timeout)
        .retries(1)
        .max_retry_wait(10);
    if let Some(tls) = &settings.tls {
        let client_tls = tls.client_pem.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: certificate.clone(),
            client_key: key.expose().as_bytes().to_vec(),
        });
        builder = builder.certs(TlsCertificates { client_tls, root_cert: tls.ca_pem.clone() });
    }
    Ok(builder.build()?.get_async_connection().await?)
}

fn with_login(mut info: RedisConnectionInfo, login: &StoreLogin) -> RedisConnectionInfo {
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.expose());
    }
    info
}

/// The TLS settings, by the same rules as towards Bold BI.
fn client_config(tls: &StoreTls) -> Result<Arc<ClientConfig>, ConnectFault> {
    let config = tls.trust.client_config()?;
    let Some((certificate, key)) = &tls.client_pem else { return Ok(config) };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key.expose().as_bytes())?)?;
    let mut config = (*config).clone();
    let certified = CertifiedKey::new(chain, key);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    Ok(Arc::new(config))
}
