-- Channels: a text is what one would write after LISTEN.
\pset null '(null)'
SELECT pushy.channel_name('NewUser');
SELECT pushy.channel_name('"NewUser"');
SELECT pushy.channel_name(repeat('x', 64));
SELECT pushy.channel_name('user');
SELECT pushy.channel_name('a-b');
SELECT pushy.channel_name('""');
SELECT pushy.channel_name(NULL);

SELECT input, channel_name, byte_length, folded, truncated, quoted, listen_sql, error
  FROM unnest(ARRAY['NewUser', '"New""User"', 'a-b', repeat('y', 70)]) AS name, pushy.channel_inspect(name);

SELECT pushy.channel_ident('newuser'), pushy.channel_ident('NewUser'), pushy.channel_ident('user');
SELECT pushy.channel_ident('');

LISTEN NewUser;
SELECT channel = pushy.channel_name('NewUser') AS heard FROM pg_listening_channels() AS channel;
SELECT pushy.notify('user', 'refused');
UNLISTEN *;
SELECT pushy.notify('NewUser', NULL);
