package member;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's own tools one after the other in one virtual machine, for the start of one takes longer than what most
 * tools do. Each line of the input is a class and its arguments, with tabs between them; each line of the output is an
 * exit code and, in base64, all that the tool has printed.
 */
public final class Tools {
    private static final class Ended extends RuntimeException {
        private final int code;

        private Ended(int code) {
            super(null, null, false, false);
            this.code = code;
        }
    }

    private Tools() {
    }

    public static void main(String[] arguments) throws Exception {
        Exit.setExitProcedure((code, message) -> {
            if (message != null) {
                System.err.println(message);
            }
            throw new Ended(code);
        });
        PrintStream answers = System.out;
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split("\t", -1);
            ByteArrayOutputStream printed = new ByteArrayOutputStream();
            PrintStream printer = new PrintStream(printed, true, StandardCharsets.UTF_8);
            System.setOut(printer);
            System.setErr(printer);
            int code = run(words[0], Arrays.copyOfRange(words, 1, words.length));
            answers.println(code + " " + Base64.getEncoder().encodeToString(printed.toByteArray()));
            answers.flush();
        }
    }

    private static int run(String tool, String[] arguments) throws ReflectiveOperationException {
        try {
            // Scala's tools print to a stream of their own, which they take from System.out at first.
            scala.Console.withOut(System.out, () -> {
                try {
                    return Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) arguments);
                } catch (InvocationTargetException error) {
                    throw error.getCause() instanceof Ended ended ? ended : new IllegalStateException(error.getCause());
                } catch (ReflectiveOperationException error) {
                    throw new IllegalArgumentException(error);
                }
            });
            return 0;
        } catch (Ended ended) {
            return ended.code;
        } catch (IllegalStateException error) {
            error.printStackTrace();
            return 1;
        }
    }
}
