//! `/etc/resolv.conf`, from what all interfaces were given.

use std::fs;
use std::io;
use std::path::Path;

use super::Lease;

/// Writes `path` for these leases, in their order.
///
/// # Errors
///
/// It can't be written.
pub fn write(path: &Path, leases: &[&Lease]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text(leases))?;
    fs::rename(new, path)
}

fn text(leases: &[&Lease]) -> String {
    let mut text = String::from("options timeout:2 attempts:3\n");
    let mut servers: Vec<_> = Vec::new();
    let mut domains: Vec<&str> = Vec::new();
    for lease in leases {
        for server in &lease.name_servers {
            if !servers.contains(server) && servers.len() < MOST_SERVERS {
                servers.push(*server);
            }
        }
        for domain in lease.domains.iter().filter(|domain| is_domain(domain)) {
            if !domains.contains(&&**domain) && domains.len() < MOST_DOMAINS {
                domains.push(domain);
            }
        }
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !domains.is_empty() {
        text.push_str(&format!("search {}\n", domains.join(" ")));
    }
    text
}

/// What a server calls a domain is written into a file that others read.
fn is_domain(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(is_letter)
}

/// The C library reads no more (resolv.conf(5)).
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mozim::DhcpV4Lease;

    use super::*;

    fn lease(servers: &[u8], domain: &str) -> Lease {
        let mut lease = DhcpV4Lease::default();
        let address = |last: &u8| Ipv4Addr::new(10, 0, 0, *last);
        lease.dns_srvs = Some(servers.iter().map(address).collect());
        lease.domain_name = Some(domain.to_owned());
        Lease::from(&lease)
    }

    #[test]
    fn servers_of_all_interfaces_are_written_each_once() {
        let first = lease(&[1, 2], "corp.example");
        let second = lease(&[2, 3, 4], "corp.example");
        assert_eq!(
            text(&[&first, &second]),
            "options timeout:2 attempts:3\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n\
             nameserver 10.0.0.3\nsearch corp.example\n"
        );
    }

    #[test]
    fn a_domain_that_is_none_is_left_out() {
        for domain in ["", "a b", "x\nnameserver 6.6.6.6", "é"] {
            assert!(
                !text(&[&lease(&[1], domain)]).contains("search"),
                "{domain}"
            );
        }
    }

    #[test]
    fn the_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        write(&path, &[&lease(&[1], "")]).unwrap();
        write(&path, &[&lease(&[2], "")]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("10.0.0.2") && !text.contains("10.0.0.1"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
