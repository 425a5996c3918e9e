use super::*;
use crate::auth::{Role, TokenKind, TokenLimits};
use crate::names::Workspace;

pub(in crate::gateway) fn principal(token: &str, workspace: &str) -> Principal {
    Principal {
        workspace: Workspace::new(workspace).unwrap(),
        subject: Arc::from("user:a"),
        token_id: Arc::from(token),
        kind: TokenKind::User,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        limits: TokenLimits::default(),
        may_load: false,
        label: None,
        metadata: None,
        issued_at: 0,
        expires_at: u64::MAX,
        issuer: Arc::from("tidegate"),
        hash8: [0; 8],
    }
}

impl Memory {
    /// True if no key holds anything.
    pub(in crate::gateway) fn is_given_back(&self) -> bool {
        self.held.is_empty()
    }

    /// Leases all that is free, to so many holders that none has its share.
    pub(in crate::gateway) fn lease_all(self: &Arc<Self>) -> Vec<Lease> {
        let mut all = Vec::new();
        for number in 0.. {
            let part = (self.max - self.used()).min(self.max / 16);
            if part == 0 {
                break;
            }
            let name = format!("t{number}");
            let holder = self.holder([10, 1, 0, number].into(), &principal(&name, &name));
            all.push(self.lease(holder, part).unwrap());
        }
        all
    }
}

/// An account of 1000 bytes: 500 for a peer, 250 for a token, 600 for a workspace.
fn account() -> Arc<Memory> {
    let mut settings = Gateway::default();
    settings.memory.budget = HostBudget::Bytes(1000);
    settings.memory.per_client = HostBudget::Share(0.5);
    settings.memory.per_token = HostBudget::Share(0.25);
    settings.memory.per_workspace = HostBudget::Bytes(600);
    settings.request_body_max = 0;
    let memory = Memory::new(&settings, 1 << 30);
    let mut memory = Arc::into_inner(memory).unwrap();
    // The room for one request of any size is more than all there is here.
    memory.shares = [500, 250, 600];
    Arc::new(memory)
}

fn lease(
    memory: &Arc<Memory>,
    (client, token, workspace): (&str, &str, &str),
    bytes: u64,
) -> Result<Lease, Refusal> {
    let principal = principal(token, workspace);
    let holder = memory.holder(client.parse().unwrap(), &principal);
    memory.lease(holder, bytes)
}

#[test]
fn no_peer_no_token_and_no_workspace_holds_more_than_its_share() {
    let memory = account();
    let mut held = Vec::new();
    for (who, bytes, fits) in [
        (("1.1.1.1", "t1", "w1"), 250, true),
        // The token has its share.
        (("2.2.2.2", "t1", "w1"), 1, false),
        (("1.1.1.1", "t2", "w1"), 250, true),
        // Its peer has, by two tokens.
        (("1.1.1.1", "t3", "w2"), 1, false),
        (("2.2.2.2", "t4", "w1"), 100, true),
        // Its workspace has, from two peers.
        (("3.3.3.3", "t5", "w1"), 1, false),
        (("3.3.3.3", "t5", "w2"), 250, true),
        (("4.4.4.4", "t6", "w2"), 150, true),
        // All is held.
        (("5.5.5.5", "t7", "w3"), 1, false),
    ] {
        match lease(&memory, who, bytes) {
            Ok(lease) => held.push(lease),
            Err(_) => assert!(!fits, "{who:?}"),
        }
        let sum: u64 = held.iter().map(Lease::bytes).sum();
        assert_eq!(memory.used(), sum, "{who:?}");
    }
    assert_eq!(held.len(), 5);
    drop(held);
    assert_eq!(memory.used(), 0);
    assert!(memory.held.is_empty());
}

#[test]
fn addresses_of_one_network_of_ipv6_are_one_peer() {
    let memory = account();
    let _first = lease(&memory, ("2001:db8::1", "t1", "w1"), 250).unwrap();
    let _second = lease(&memory, ("2001:db8::2", "t2", "w2"), 250).unwrap();
    lease(&memory, ("2001:db8::3", "t3", "w3"), 1).unwrap_err();
    lease(&memory, ("2001:db8:0:1::3", "t3", "w3"), 1).unwrap();
}

#[test]
fn a_lease_grows_shrinks_and_is_split_within_the_account() {
    let memory = account();
    let mut lease = lease(&memory, ("1.1.1.1", "t1", "w1"), 100).unwrap();
    lease.resize(200).unwrap();
    lease.resize(251).unwrap_err();
    assert_eq!((lease.bytes(), memory.used()), (200, 200));
    let part = lease.split(50);
    assert_eq!((lease.bytes(), part.bytes(), memory.used()), (150, 50, 200));
    lease.shrink(10);
    lease.shrink(20);
    assert_eq!(memory.used(), 60);
    drop(part);
    assert_eq!(memory.used(), 10);
    drop(lease);
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn whoever_waits_is_told_when_there_is_room_again() {
    let memory = account();
    let parties = [
        ("1.1.1.1", "t1", "w1"),
        ("1.1.1.1", "t2", "w1"),
        ("2.2.2.2", "t3", "w2"),
    ];
    let mut held: Vec<_> = parties.map(|who| lease(&memory, who, 250).unwrap()).into();
    held.push(lease(&memory, ("2.2.2.2", "t4", "w2"), 200).unwrap());
    assert!(memory.is_short());
    let waits = memory.relieved();
    tokio::pin!(waits);
    assert!(futures_now(waits.as_mut()).await.is_none());
    held.pop();
    waits.await;
    assert!(!memory.is_short());
}

/// Output of a future that is ready at once.
async fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[test]
fn windows_of_connections_are_held_and_get_smaller_with_what_is_free() {
    let mut settings = Gateway::default();
    settings.memory.budget = HostBudget::Bytes(64 << 20);
    settings.memory.per_client = HostBudget::Share(1.0);
    settings.request_body_max = 0;
    let memory = Memory::new(&settings, 1 << 30);
    let holder = memory.connection(Some([10, 0, 0, 1].into()));
    let (mut held, mut sum, mut last) = (Vec::new(), 0, u32::MAX);
    while let Ok((windows, lease)) = memory.windows(holder) {
        assert!(windows.connection <= last && windows.stream <= windows.connection);
        last = windows.connection;
        sum += u64::from(windows.connection);
        held.push(lease);
        assert_eq!(memory.used(), sum);
    }
    assert_eq!(last, WINDOW_MIN);
    // All that they let in fits.
    assert_eq!((held.len(), sum), (1024, 64 << 20));
    held.clear();
    assert_eq!(memory.used(), 0);
    // Of much more a connection gets more, and of one client all no more than its share.
    settings.memory.budget = HostBudget::Bytes(8 << 30);
    settings.memory.per_client = HostBudget::Bytes(8 << 20);
    let memory = Memory::new(&settings, 1 << 40);
    let holder = memory.connection(Some([10, 0, 0, 1].into()));
    let first = memory.windows(holder).unwrap();
    assert_eq!((first.0.connection, first.0.stream), (4 << 20, 1 << 20));
    let second = memory.windows(holder).unwrap();
    assert_eq!(second.0.connection, 4 << 20);
    memory.windows(holder).unwrap_err();
    let other = memory.connection(Some([10, 0, 0, 2].into()));
    assert_eq!(memory.windows(other).unwrap().0.connection, 4 << 20);
    drop((first, second));
}
