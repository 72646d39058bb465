package dev.quiesce.faults;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Stands before the server's management port and passes everything on, until it is told to misbehave: {@code POST
 * /hang} to the control port, or any other fault of {@code answer}; {@code /none} ends it. {@code GET /} tells how
 * often each operation was asked for.
 */
public final class FaultyProxy {
    private static final URI SERVER = URI.create("http://127.0.0.1:9990");
    private static final int ADMIN = 9991;
    private static final int CONTROL = 9992;
    /** An operation's name comes first in its request; the steps of a composite come later. */
    private static final Pattern OPERATION = Pattern.compile("\"operation\"\\s*:\\s*\"([a-z-]+)\"");
    private static final Set<String> WRITES = Set.of("suspend", "resume", "shutdown", "add", "remove");
    /** Headers that belong to one connection, and that an HTTP client sets by itself. */
    private static final Set<String> OWN = Set.of("connection", "content-length", "host", "transfer-encoding", "date");

    private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final Map<String, Integer> asked = new ConcurrentSkipListMap<>();
    private volatile String fault = "none";
    private HttpServer admin;

    public static void main(String[] arguments) throws IOException {
        FaultyProxy proxy = new FaultyProxy();
        proxy.listen();
        HttpServer control = HttpServer.create(new InetSocketAddress(CONTROL), 0);
        control.createContext("/", proxy::control);
        control.start();
    }

    private void listen() throws IOException {
        admin = HttpServer.create(new InetSocketAddress(ADMIN), 0);
        admin.createContext("/", this::answer);
        admin.setExecutor(threads);
        admin.start();
    }

    private void control(HttpExchange exchange) throws IOException {
        if (exchange.getRequestMethod().equals("POST")) {
            boolean wasDown = fault.equals("down");
            fault = exchange.getRequestURI().getPath().substring(1);
            if (fault.equals("down")) {
                admin.stop(0); // every connection breaks
            } else if (wasDown) {
                listen();
            }
        }
        StringBuilder counts = new StringBuilder();
        asked.forEach((name, count) -> counts.append(name).append(' ').append(count).append('\n'));
        reply(exchange, 200, "text/plain", counts.toString());
    }

    private void answer(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        Matcher found = OPERATION.matcher(new String(body));
        String operation = found.find() ? found.group(1) : "none";
        asked.merge(operation, 1, Integer::sum);
        try {
            switch (fault) {
                case "hang" -> hang();
                case "401" -> {
                    exchange.getResponseHeaders().set("WWW-Authenticate", "Digest realm=\"x\", nonce=\"y\", qop=\"auth\"");
                    reply(exchange, 401, "text/plain", "");
                }
                case "html" -> reply(exchange, 200, "text/html", "<html><body>It works!</body></html>");
                case "json" -> reply(exchange, 200, "application/json", "{\"status\": \"UP\", \"checks\": []}");
                case "slow" -> {
                    Thread.sleep(3000);
                    forward(exchange, body);
                }
                case "lies" -> {
                    if (WRITES.contains(operation)) {
                        reply(exchange, 200, "application/json", "{\"outcome\": \"success\"}");
                    } else {
                        forward(exchange, body);
                    }
                }
                default -> forward(exchange, body);
            }
        } catch (InterruptedException | IOException broken) {
            // As if the server had closed the connection.
        } finally {
            exchange.close();
        }
    }

    private void hang() throws InterruptedException {
        while (fault.equals("hang")) {
            Thread.sleep(100);
        }
    }

    private void forward(HttpExchange exchange, byte[] body) throws IOException, InterruptedException {
        HttpRequest.Builder request = HttpRequest.newBuilder(SERVER.resolve(exchange.getRequestURI()))
                .method(exchange.getRequestMethod(), HttpRequest.BodyPublishers.ofByteArray(body));
        exchange.getRequestHeaders().forEach((name, values) -> {
            if (!OWN.contains(name.toLowerCase(Locale.ROOT))) {
                values.forEach(value -> request.header(name, value));
            }
        });
        HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
        answer.headers().map().forEach((name, values) -> {
            if (!OWN.contains(name.toLowerCase(Locale.ROOT))) {
                exchange.getResponseHeaders().put(name, values);
            }
        });
        send(exchange, answer.statusCode(), answer.body());
    }

    private static void reply(HttpExchange exchange, int status, String type, String body) throws IOException {
        exchange.getResponseHeaders().set("Content-Type", type);
        send(exchange, status, body.getBytes());
    }

    private static void send(HttpExchange exchange, int status, byte[] body) throws IOException {
        boolean empty = body.length == 0;
        exchange.sendResponseHeaders(status, empty ? -1 : body.length);
        if (!empty) {
            exchange.getResponseBody().write(body);
        }
        exchange.close();
    }
}
