//! Changes of a channel that has an owner, and of its grants, in its rows.

use super::granted::GrantedChannel;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::heap::{self, Key};
use crate::pg::spi::{self, Plan};
use crate::pg::{text, transaction, BuiltinOid, Oid};

use BuiltinOid::{INT8OID, OIDOID, TEXTOID};

static INSERT: Plan = Plan::new(
    "INSERT INTO pushy_internal.channel (channel, owner, owner_name, home_system, home_database) \
     VALUES ($1, $2, $3::pg_catalog.name, $4, $5) ON CONFLICT (channel) DO NOTHING",
    &[TEXTOID, OIDOID, TEXTOID, INT8OID, OIDOID],
);

// Only where it is whose it was when that was asked: by now it may be another's.
static UPDATE: Plan = Plan::new(
    "UPDATE pushy_internal.channel c SET owner = $2, owner_name = $3::pg_catalog.name, home_system = $4, home_database = $5 \
      WHERE c.channel OPERATOR(pg_catalog.=) $1 AND c.owner OPERATOR(pg_catalog.=) $6 AND c.home_system OPERATOR(pg_catalog.=) $7",
    &[TEXTOID, OIDOID, TEXTOID, INT8OID, OIDOID, OIDOID, INT8OID],
);

// One that was given is not given later by being given again, unless it is for other topics now: none of theirs that were
// written before it are read. A place that is ahead of the WAL is another server's, or of a time
// that a restore has undone; a row of another home is none of this channel's.
static GRANT: Plan = Plan::new(
    "INSERT INTO pushy_internal.channel_acl AS a (channel, grantee, grantee_name, privilege, topics, granted_lsn, home_system, home_database, granted_cursor) \
     VALUES ($1, $2, $3::pg_catalog.name, $4, $5, $6, $7, $8, pushy.log_position()) \
     ON CONFLICT (channel, grantee, privilege) DO UPDATE SET grantee_name = excluded.grantee_name, topics = excluded.topics, \
            home_system = excluded.home_system, home_database = excluded.home_database, \
            granted_lsn = CASE WHEN a.home_system OPERATOR(pg_catalog.=) excluded.home_system AND a.home_database OPERATOR(pg_catalog.=) excluded.home_database \
                               AND COALESCE(a.topics OPERATOR(pg_catalog.=) excluded.topics, a.topics IS NULL) \
                               THEN LEAST(a.granted_lsn, excluded.granted_lsn) ELSE excluded.granted_lsn END, \
            granted_cursor = CASE WHEN a.home_system OPERATOR(pg_catalog.=) excluded.home_system AND a.home_database OPERATOR(pg_catalog.=) excluded.home_database \
                                  AND COALESCE(a.topics OPERATOR(pg_catalog.=) excluded.topics, a.topics IS NULL) \
                                  THEN COALESCE(a.granted_cursor, excluded.granted_cursor) ELSE excluded.granted_cursor END",
    &[
        TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, OIDOID,
    ],
);

/// Also by name, for a role that is gone.
static REVOKE: Plan = Plan::new(
    "DELETE FROM pushy_internal.channel_acl a \
      WHERE a.channel OPERATOR(pg_catalog.=) $1 \
        AND (a.grantee OPERATOR(pg_catalog.=) $2 OR a.grantee_name OPERATOR(pg_catalog.=) $3::pg_catalog.name) \
        AND a.privilege OPERATOR(pg_catalog.=) $4",
    &[TEXTOID, OIDOID, TEXTOID, TEXTOID],
);

static CLEAR: Plan = Plan::new(
    "DELETE FROM pushy_internal.channel_acl a WHERE a.channel OPERATOR(pg_catalog.=) $1",
    &[TEXTOID],
);

impl GrantedChannel {
    /// Adds it, without what a dump has brought for one of its name; false when somebody else was quicker.
    pub fn insert(&self) -> bool {
        let channel = text::bytes_to_datum(&self.channel);
        let home = Oid::from(self.home_database);
        let owner_name = self.owner_name.as_str();
        let written = params![channel, self.owner, owner_name, self.home_system, home];
        let is_new = spi::run(&INSERT, written) > 0;
        if is_new {
            self.clear();
        }
        is_new
    }

    fn clear(&self) {
        let channel = text::bytes_to_datum(&self.channel);
        spi::run(&CLEAR, params![channel]);
    }

    /// Writes whose it is and where it is at home, if it is still `before`'s.
    pub fn update(&self, before: &Self) -> Result<()> {
        let channel = text::bytes_to_datum(&self.channel);
        let home = Oid::from(self.home_database);
        let owner_name = self.owner_name.as_str();
        let written = params![
            channel,
            self.owner,
            owner_name,
            self.home_system,
            home,
            before.owner,
            before.home_system
        ];
        if spi::run(&UPDATE, written) > 0 {
            return Ok(());
        }
        Err(Error::new(
            SqlState::OBJECT_IN_USE,
            format!(
                "channel \"{}\" was taken over by another meanwhile",
                text::shown(&self.channel)
            ),
        )
        .hint("Try again."))
    }

    /// Locks its row: changes of one channel come one after another, and who waits is told for which prepared transaction.
    pub fn lock(&self) -> Result<()> {
        let name = text::shown(&self.channel);
        let what = || format!("channel \"{name}\"");
        heap::lock_before_write(
            "channel",
            "channel_pkey",
            &[Key::text_equals(1, &name)],
            &what,
        )?;
        Ok(())
    }

    /// Lets a role read what is written from now on.
    pub fn grant(&self, grantee: Oid, name: &str, privilege: &str, topics: Option<&str>) {
        self.put(
            grantee,
            name,
            privilege,
            topics,
            transaction::wal_position(),
        );
    }

    fn put(&self, grantee: Oid, name: &str, privilege: &str, topics: Option<&str>, since: i64) {
        let channel = text::bytes_to_datum(&self.channel);
        let home = Oid::from(self.home_database);
        let given = params![
            channel,
            grantee,
            name,
            privilege,
            topics,
            since,
            self.home_system,
            home
        ];
        spi::run(&GRANT, given);
    }

    /// How many grants there were; `grantee` None: only by its name.
    pub fn revoke(&self, grantee: Option<Oid>, name: &str, privilege: &str) -> u64 {
        let channel = text::bytes_to_datum(&self.channel);
        // A number that no grant has.
        let number = grantee.unwrap_or(Oid::from(u32::MAX));
        spi::run(&REVOKE, params![channel, number, name, privilege])
    }

    /// Makes this database its home: grants to roles that are not here go.
    pub fn adopt(&mut self) -> Result<()> {
        let owner = self.owner_here().ok_or_else(|| {
            Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!("role \"{}\" does not exist", self.owner_name),
            )
            .hint("A superuser can grant the channel, and owns it then.")
        })?;
        self.adopt_for(owner)
    }

    /// The same, for an owner who may be another than before.
    pub fn adopt_for(&mut self, owner: Oid) -> Result<()> {
        let keeps_places = self.is_of_this_cluster() || self.is_loaded();
        let now = transaction::wal_position();
        let grantees: Vec<_> = self
            .grants
            .iter()
            .map(|grant| self.grantee_here(grant))
            .collect();
        let here = Self::new(&self.channel, owner);
        here.update(self)?;
        *self = Self {
            grants: std::mem::take(&mut self.grants),
            ..here
        };
        self.clear();
        for (grant, grantee) in self.grants.iter().zip(grantees) {
            let since = if keeps_places {
                grant.since.min(now)
            } else {
                now
            };
            if let Some((grantee, name)) = grantee {
                let topics = grant.topics.as_deref();
                self.put(grantee, &name, &grant.privilege, topics, since);
            }
        }
        Ok(())
    }
}
