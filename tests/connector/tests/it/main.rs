//! The Connector with agents over real TLS. The agents are scripted: they say what a test wants.

mod agent;
mod commands;
mod http;
mod jobs;
mod killed;
mod load;
mod order;
mod stage;
mod trust;
