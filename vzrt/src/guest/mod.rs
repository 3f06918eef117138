//! stub
use std::net::IpAddr; use std::os::fd::BorrowedFd;
use serde::{Serialize,Deserialize};
/// s
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostnameStyle { /// s
 #[default] EtcHostname }
/// s
pub fn set_hostname(_r: BorrowedFd, _s: HostnameStyle, _n: &str) -> Result<(), std::io::Error> { Ok(()) }
/// s
pub fn set_dns(_r: BorrowedFd, _n: &[IpAddr], _s: &[String]) -> Result<(), std::io::Error> { Ok(()) }
