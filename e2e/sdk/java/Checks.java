import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import com.microsoft.azure.sdk.iot.service.twin.TwinCollection;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;

/** Checks that print what they saw, one line each, and end the program when one fails. */
final class Checks {
    static final int WAIT = 30; // seconds; nothing here takes one of them on a hub that works

    private Checks() {}

    interface Call {
        void run() throws Exception;
    }

    static void ok(String what) {
        System.out.println("ok " + what);
    }

    static void check(String what, Object got, Object want) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
        ok(what);
    }

    /** Checks that the call throws an exception of the kind, and returns it. */
    static <E extends Exception> E fails(String what, Class<E> kind, Call call) {
        try {
            call.run();
        } catch (Exception e) {
            if (kind.isInstance(e)) {
                ok(what + ": " + e.getClass().getSimpleName());
                return kind.cast(e);
            }
            throw new AssertionError(what + ": want " + kind.getSimpleName(), e);
        }
        throw new AssertionError(what + ": want " + kind.getSimpleName());
    }

    static JsonElement json(String text) {
        return JsonParser.parseString(text);
    }

    /** Returns properties without their version. */
    static JsonElement properties(TwinCollection properties) {
        var object = properties.toJsonObject();
        object.remove("$version");
        return object;
    }

    /** Returns what a handler received. */
    static <T> T next(String what, BlockingQueue<T> inbox) throws InterruptedException {
        T got = inbox.poll(WAIT, TimeUnit.SECONDS);
        if (got == null) {
            throw new AssertionError(what + ": nothing came in " + WAIT + " s");
        }
        return got;
    }

    /** Runs a program; threads that an SDK left behind do not keep it alive. */
    static void main(Call program) {
        try {
            program.run();
            System.out.println("all checks passed");
            System.exit(0);
        } catch (Throwable e) {
            System.out.println("FAILED");
            e.printStackTrace(System.out);
            System.exit(1);
        }
    }
}
