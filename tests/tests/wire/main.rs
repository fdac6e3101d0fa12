//! "What one side says, the other understands as the same": the words of jobs and results between
//! agent and Connector, each with its own code.

mod hostile;
mod request;
mod result;
