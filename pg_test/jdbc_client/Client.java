// JDBC: casts of parameters, PGInterval and arrays, commit and rollback, statements that the server has prepared, LISTEN.
// `java -cp postgresql.jar Client.java PORT DATABASE` prints a line for each thing seen: its name and what it was.
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;

public class Client {
    static Connection open(String[] args) throws SQLException {
        // prepareThreshold=1: in the server from the first execution on.
        return DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + args[0] + "/" + args[1] + "?prepareThreshold=1", "postgres", "");
    }

    static void saw(String what, String json) {
        System.out.println("[\"" + what + "\", " + json + "]");
    }

    static String one(Statement by, String sql) throws SQLException {
        try (ResultSet rows = by.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static String one(PreparedStatement by) throws SQLException {
        try (ResultSet rows = by.executeQuery()) {
            rows.next();
            return rows.getString(1);
        }
    }

    static String next(PGConnection session) throws SQLException {
        PGNotification[] heard;
        do heard = session.getNotifications(0); while (heard == null || heard.length == 0);
        if (heard.length > 1) throw new IllegalStateException("more than one notice");
        return "{\"channel\": \"" + heard[0].getName() + "\", \"payload\": " + heard[0].getParameter() + "}";
    }

    public static void main(String[] args) throws SQLException {
        try (Connection session = open(args); Connection listener = open(args);
             Statement plain = session.createStatement(); Statement listen = listener.createStatement();
             PreparedStatement enqueue = session.prepareStatement("SELECT pushy.enqueue(?, ?::jsonb)");
             PreparedStatement named = session.prepareStatement("SELECT pushy.enqueue(queue => ?, args => ?, delay => ?, unique_key => ?)");
             PreparedStatement subscribe = session.prepareStatement("SELECT pushy.subscription_create(?, ?)");
             PreparedStatement wait = session.prepareStatement("SELECT jsonb_build_object('state', state, 'result', result) FROM pushy.job_wait(?)")) {
            enqueue.setString(1, "q");
            session.setAutoCommit(false);
            enqueue.setString(2, "{\"n\": 1}");
            one(enqueue);
            session.rollback();
            enqueue.setString(2, "{\"n\": 2}");
            wait.setLong(1, Long.parseLong(one(enqueue)));
            session.commit();
            session.setAutoCommit(true);
            saw("committed", one(wait));
            saw("jobs", one(plain, "SELECT json_build_object('count', count(*)) FROM pushy.jobs"));

            PGobject arguments = new PGobject();
            arguments.setType("jsonb");
            arguments.setValue("{\"text\": \"it's ? :x $1\"}");
            named.setString(1, "q");
            named.setObject(2, arguments);
            named.setObject(3, new PGInterval(0, 0, 0, 1, 0, 0));
            named.setString(4, "k");
            saw("named", one(plain, "SELECT json_build_object('args', args, 'delay', run_at - enqueued_at) FROM pushy.jobs WHERE id = " + one(named)));
            Array channels = session.createArrayOf("text", new String[] {"plain", "\"Item News\""});
            subscribe.setString(1, "s");
            subscribe.setArray(2, channels);
            one(subscribe);
            saw("array", one(plain, "SELECT json_build_object('channels', channels) FROM pushy.subscriptions"));

            plain.execute("SELECT pushy.queue_drop('q', force => true)");
            try {
                one(enqueue);
                throw new IllegalStateException("was not refused");
            } catch (SQLException refused) {
                saw("dropped", "\"" + refused.getSQLState() + "\"");
            }
            plain.execute("SELECT pushy.queue_register('q', 'see(jsonb)')");
            enqueue.setString(2, "{\"n\": 3}");
            wait.setLong(1, Long.parseLong(one(enqueue)));
            saw("registered", one(wait));

            listen.execute("LISTEN " + one(plain, "SELECT channel FROM pushy.watches"));
            PGConnection notices = listener.unwrap(PGConnection.class);
            plain.execute("INSERT INTO item (title, amount) VALUES ('a', 1)");
            saw("created", next(notices));
            plain.execute("UPDATE item SET title = 'b'");
            plain.execute("UPDATE item SET amount = 2");
            saw("updated", next(notices));

            plain.execute("ALTER TABLE item ALTER amount TYPE bigint, ALTER amount SET NOT NULL, ALTER amount SET DEFAULT 7");
            plain.execute("ALTER TABLE item RENAME amount TO total");
            saw("watch", one(plain, "SELECT json_build_object('columns', columns, 'condition', condition, 'state', state) FROM pushy.watches"));
            plain.execute("UPDATE item SET total = 5000000000");
            saw("migrated", next(notices));
            plain.execute("ALTER TABLE item DROP title");
            plain.execute("UPDATE item SET total = 3");
            saw("removed", next(notices));
        }
    }
}
