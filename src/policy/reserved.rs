//! Why a request below `/boldgate/` is for no endpoint of the gateway. Pure.

/// The fault of such a request. Nothing of it is ever forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservedFault {
    /// The tenant has no `embed`.
    #[error("nothing below `/boldgate/` is forwarded, and the tenant has no `embed`")]
    Off,
    /// There is no such endpoint.
    #[error(
        "nothing below `/boldgate/` is forwarded, and the endpoints there are \
         `POST …/boldgate/embed/authorize` and `POST …/boldgate/embed/token`"
    )]
    Endpoint,
    /// The endpoint is there, and the method is another than POST.
    #[error("the endpoint of the gateway takes only POST")]
    Method,
}
