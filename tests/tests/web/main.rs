//! The secured web server as its clients meet it: curl, Prometheus, the verbs that ask a daemon, and those who mean no good.
//! Hosts are network namespaces; traffic goes by while it happens, and all of it must be judged.

mod attack;
mod files;
mod prometheus;
mod site;
mod tls;
mod verbs;
