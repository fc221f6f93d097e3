package member;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A producer and a group member on the Apache Kafka client. Its command line and the events that it prints are those
 * of every client program here; tests/clients/members.py says what each means.
 */
public final class Member {
    private static final Duration CLOSE = Duration.ofSeconds(10);

    private final String bootstrap;
    private final String topic;
    private final Map<String, String> settings = new HashMap<>();

    private Member(String[] arguments) {
        bootstrap = arguments[1];
        topic = arguments[2];
        for (int i = 4; i < arguments.length; i++) {
            String[] parts = arguments[i].split("=", 2);
            settings.put(parts[0], parts.length == 2 ? parts[1] : "");
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 4) {
            System.err.println("usage: produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP, then NAME=VALUE");
            System.exit(2);
        }
        Member member = new Member(arguments);
        if (arguments[0].equals("produce")) {
            member.produce(Integer.parseInt(arguments[3]));
        } else {
            member.consume(arguments[3]);
        }
        emit("{\"event\":\"closed\"}");
    }

    private static synchronized void emit(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static void problem(Exception error) {
        String message = String.valueOf(error).replace("\\", "\\\\").replace("\"", "'").replace("\n", " ");
        emit("{\"event\":\"problem\",\"message\":\"" + message + "\"}");
    }

    private String setting(String name, String otherwise) {
        return settings.getOrDefault(name, otherwise);
    }

    /** Where the agents are, and how to come in: the file PATH.properties, when the setting `security` is PATH. */
    private Properties reach() throws IOException {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        if (settings.containsKey("security")) {
            try (Reader file = Files.newBufferedReader(Path.of(settings.get("security") + ".properties"))) {
                properties.load(file);
            }
            String token = properties.getProperty("sasl.oauthbearer.token.endpoint.url");
            if (token != null) {
                System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", token);
            }
        }
        return properties;
    }

    private void produce(int count) throws IOException, InterruptedException {
        Properties properties = reach();
        properties.put("key.serializer", StringSerializer.class.getName());
        properties.put("value.serializer", StringSerializer.class.getName());
        properties.put("compression.type", setting("codec", "none"));
        int from = Integer.parseInt(setting("from", "0"));
        int partitions = Integer.parseInt(setting("partitions", "1"));
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(properties)) {
            for (int number = from; number < from + count; number++) {
                String value = Integer.toString(number);
                if (settings.containsKey("pause_ms")) {
                    insist(producer, new ProducerRecord<>(topic, number % partitions, null, value));
                    continue;
                }
                producer.send(new ProducerRecord<>(topic, number % partitions, null, value), (done, error) -> {
                    if (error != null) {
                        problem(error);
                    } else {
                        produced(done, value);
                    }
                });
            }
        }
    }

    /** Produces one record, again until it succeeds, with a pause after each attempt. */
    private void insist(KafkaProducer<String, String> producer, ProducerRecord<String, String> record)
            throws InterruptedException {
        boolean isDone = false;
        while (!isDone) {
            try {
                produced(producer.send(record).get(), record.value());
                isDone = true;
            } catch (ExecutionException error) {
                problem((Exception) error.getCause());
            } catch (KafkaException error) {
                problem(error);
            }
            Thread.sleep(Long.parseLong(settings.get("pause_ms")));
        }
    }

    private static void produced(RecordMetadata done, String value) {
        emit("{\"event\":\"produced\",\"partition\":" + done.partition() + ",\"offset\":" + done.offset()
                + ",\"value\":\"" + value + "\"}");
    }

    private Properties consumerProperties(String group) throws IOException {
        Properties properties = reach();
        properties.put("group.id", group);
        properties.put("key.deserializer", StringDeserializer.class.getName());
        properties.put("value.deserializer", StringDeserializer.class.getName());
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("max.poll.records", "100");
        properties.put("session.timeout.ms", setting("session_ms", "10000"));
        properties.put("heartbeat.interval.ms", setting("heartbeat_ms", "1000"));
        boolean isCooperative = setting("assignor", "range").equals("cooperative");
        properties.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer."
                + (isCooperative ? "CooperativeStickyAssignor" : "RangeAssignor"));
        if (settings.containsKey("instance")) {
            properties.put("group.instance.id", settings.get("instance"));
        }
        return properties;
    }

    private void consume(String group) throws IOException, InterruptedException {
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(consumerProperties(group));
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                closed.await();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }));
        try {
            consumer.subscribe(List.of(topic), new Owned());
            while (true) {
                try {
                    process(consumer);
                } catch (AuthorizationException error) {
                    problem(error);
                    Thread.sleep(200);
                }
            }
        } catch (WakeupException stop) {
            consumer.close(CLOSE);
            emit("{\"event\":\"closed\"}");
        } finally {
            closed.countDown();
        }
        // The virtual machine is on its way out; the hook has told.
        Thread.currentThread().join();
    }

    private static void process(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
            emit("{\"event\":\"record\",\"partition\":" + record.partition() + ",\"offset\":" + record.offset()
                    + ",\"value\":\"" + record.value() + "\"}");
            next.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
        }
        if (next.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(next);
            next.forEach((partition, offset) -> emit("{\"event\":\"committed\",\"partition\":" + partition.partition()
                    + ",\"offset\":" + offset.offset() + "}"));
        } catch (WakeupException stop) {
            throw stop;
        } catch (KafkaException error) {
            problem(error);
        }
    }

    /** Prints all the partitions that the member has, whenever that changes. */
    private static final class Owned implements ConsumerRebalanceListener {
        private final TreeSet<Integer> partitions = new TreeSet<>();

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> gained) {
            gained.forEach(partition -> partitions.add(partition.partition()));
            tell();
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> lost) {
            lost.forEach(partition -> partitions.remove(partition.partition()));
            tell();
        }

        private void tell() {
            emit("{\"event\":\"assigned\",\"partitions\":" + new ArrayList<>(partitions) + "}");
        }
    }
}
