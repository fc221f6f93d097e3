package member;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
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
    /** Thrown where a tool would end the process. Some tools catch it and want to end with another code. */
    private static final class Ended extends RuntimeException {
        private Ended() {
            super(null, null, false, false);
        }
    }

    private static ByteArrayOutputStream printed;
    /** What the tool ended with at first, and what it had printed by then; null while it has not ended. */
    private static Integer code;
    private static byte[] output;

    private Tools() {
    }

    public static void main(String[] arguments) throws Exception {
        Exit.setExitProcedure((code, message) -> {
            if (message != null) {
                System.err.println(message);
            }
            end(code);
            throw new Ended();
        });
        PrintStream answers = System.out;
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split("\t", -1);
            code = null;
            printed = new ByteArrayOutputStream();
            PrintStream printer = new PrintStream(printed, true, StandardCharsets.UTF_8);
            System.setOut(printer);
            System.setErr(printer);
            run(words[0], Arrays.copyOfRange(words, 1, words.length));
            answers.println(code + " " + Base64.getEncoder().encodeToString(output));
            answers.flush();
        }
    }

    private static void end(int ending) {
        if (code == null) {
            code = ending;
            output = printed.toByteArray();
        }
    }

    private static void run(String tool, String[] arguments) {
        try {
            // Scala's tools print to a stream of their own, which they take from System.out at first.
            scala.Console.withOut(System.out, () -> {
                try {
                    return Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) arguments);
                } catch (ReflectiveOperationException error) {
                    throw new IllegalArgumentException(error);
                }
            });
            end(0);
        } catch (IllegalArgumentException error) {
            if (code == null) {
                error.printStackTrace();
            }
            end(1);
        }
    }
}
