package dev.quiesce.testapp;

import jakarta.servlet.annotation.WebServlet;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;

/** Answers after {@code ms} milliseconds; with {@code session=1} it leaves an HTTP session behind. */
@WebServlet("/slow")
public class SlowServlet extends HttpServlet {
    private static final String VERSION = System.getenv().getOrDefault("VERSION", "none");

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        long milliseconds;
        try {
            milliseconds = Long.parseLong(request.getParameter("ms"));
        } catch (NumberFormatException wrong) {
            response.sendError(HttpServletResponse.SC_BAD_REQUEST, "ms has to be a whole number");
            return;
        }
        if ("1".equals(request.getParameter("session"))) {
            request.getSession(true);
        }
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException stopped) {
            // The server is going down under this request: that is the failure which the tests look for.
            Thread.currentThread().interrupt();
            response.sendError(HttpServletResponse.SC_INTERNAL_SERVER_ERROR, "interrupted");
            return;
        }
        response.setContentType("text/plain");
        response.getWriter().printf("ok version=%s%n", VERSION);
    }
}
